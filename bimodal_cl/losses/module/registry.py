"""Find the losses: the classes of settings that the files of ``bimodal_cl/losses`` declare.

Adding a loss needs no line here.
"""

from __future__ import annotations

import importlib
import pkgutil
import typing
from pathlib import Path

from bimodal_cl.losses.rules.base import LossSettings

# The order of `LOSSES` and of `--help`. A loss that is not named here comes after these, by name.
_ORDER = ("clip", "siglip", "cyclip", "macl", "sogclr", "isogclr", "rgcl_g")


def _find_losses() -> dict[str, type[LossSettings]]:
    """Import each file of ``bimodal_cl/losses``, not its sub-packages, and collect the settings declared there."""
    found: dict[str, type[LossSettings]] = {}
    for file in pkgutil.iter_modules([str(Path(__file__).parents[1])]):
        if file.ispkg:
            continue
        module = importlib.import_module(f"bimodal_cl.losses.{file.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, LossSettings) and value.__module__ == module.__name__:
                (name,) = typing.get_args(value.model_fields["name"].annotation)
                assert name not in found, f"{found[name]} and {value} both declare the loss '{name}'"
                found[name] = value
    ranks = {name: rank for rank, name in enumerate(_ORDER)}
    return dict(sorted(found.items(), key=lambda loss: (ranks.get(loss[0], len(ranks)), loss[0])))


LOSS_SETTINGS = _find_losses()
LOSSES = tuple(LOSS_SETTINGS)
