"""Contrastive losses over image-text pairs, for any training loop.

>>> loss = build_loss("isogclr", num_images=1_000, num_texts=5_000, rho=4.0)
>>> out = loss(image_features, text_features, image_ids, text_ids)
>>> out.loss.backward()

Names are loaded when they are first used, so that the settings of each loss can be read without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bimodal_cl.losses.margin import Margins, contrastive_margins
    from bimodal_cl.losses.module.build import build_loss
    from bimodal_cl.losses.module.contrastive import ContrastiveLoss, LossOutput
    from bimodal_cl.losses.module.registry import LOSSES

_HOME = {
    "LOSSES": "module.registry",
    "ContrastiveLoss": "module.contrastive",
    "LossOutput": "module.contrastive",
    "Margins": "margin",
    "build_loss": "module.build",
    "contrastive_margins": "margin",
}

__all__ = ["LOSSES", "ContrastiveLoss", "LossOutput", "Margins", "build_loss", "contrastive_margins"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
