"""Dual encoders: an image tower and a text tower with unit-norm features in a shared space.

Public names are imported on first use, so that importing this package imports neither open_clip nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bimodal_cl.models.build import build_model
    from bimodal_cl.models.dual_encoder import DualEncoder
    from bimodal_cl.models.load import load_model

_HOME = {"build_model": "build", "DualEncoder": "dual_encoder", "load_model": "load"}

__all__ = ["DualEncoder", "build_model", "load_model"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
