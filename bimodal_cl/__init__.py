"""Image-text contrastive pretraining with adaptive and individualized temperatures.

>>> config = load_config("configs/train/quickstart.yaml", {"output": "runs/first"})
>>> Trainer(config).run()
PosixPath('runs/first')

Names are loaded when they are first used, so that importing the package, or a part of it, costs nothing more.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bimodal_cl.config.schema import Config
    from bimodal_cl.config.yaml_files import load_config, make_config
    from bimodal_cl.errors import RunStopped, UserError
    from bimodal_cl.train import Trainer

__version__ = "0.1.0"

_HOME = {
    "Config": "config.schema",
    "RunStopped": "errors",
    "Trainer": "train",
    "UserError": "errors",
    "load_config": "config.yaml_files",
    "make_config": "config.yaml_files",
}

__all__ = ["Config", "RunStopped", "Trainer", "UserError", "load_config", "make_config"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
