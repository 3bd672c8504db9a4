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
    """Import each file of ``bimodal_cl/losses``, not its sub-packages, and collect the settings declared there.

    Raises:
        TypeError: a loss declares no name, or that of another one.
    """
    found: dict[str, type[LossSettings]] = {}
    for file in pkgutil.iter_modules([str(Path(__file__).parents[1])]):
        if file.ispkg:
            continue
        module = importlib.import_module(f"bimodal_cl.losses.{file.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, LossSettings) and value.__module__ == module.__name__:
                names = typing.get_args(value.model_fields["name"].annotation) if "name" in value.model_fields else ()
                if len(names) != 1 or names[0] in found:
                    raise TypeError(
                        f"{module.__name__}.{value.__name__} must declare a name of its own, as in "
                        f"name: Literal['{file.name}']; taken: {', '.join(found)}"
                    )
                found[names[0]] = value
    ranks = {name: rank for rank, name in enumerate(_ORDER)}
    return dict(sorted(found.items(), key=lambda loss: (ranks.get(loss[0], len(ranks)), loss[0])))


LOSS_SETTINGS = _find_losses()
LOSSES = tuple(LOSS_SETTINGS)
