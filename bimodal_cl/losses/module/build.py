"""Build a loss from its name and plain keyword arguments."""

from __future__ import annotations

import numbers
import warnings
from typing import Any

from bimodal_cl.errors import UserError
from bimodal_cl.losses.module.contrastive import ContrastiveLoss
from bimodal_cl.losses.module.keywords import read_settings


def build_loss(
    name: str, *, num_images: int | None = None, num_texts: int | None = None, **hyperparameters: Any
) -> ContrastiveLoss:
    """Build a loss by name.

    Args:
        name: one of :data:`bimodal_cl.losses.LOSSES`.
        num_images: images of the data set: rows of the per-anchor table.
        num_texts: texts of the data set.
        hyperparameters: fields of the named loss; see its class in ``bimodal_cl/losses``.

    Raises:
        UserError: an unknown name, an unknown hyperparameter for that name, a value of the wrong type (text where a
            number belongs), or a missing table size.
        ValueError: a value out of range, or one that another hyperparameter leaves without effect.
    """
    settings = read_settings(name, **hyperparameters)
    sizes = {"num_images": num_images, "num_texts": num_texts}
    missing = [key for key, size in sizes.items() if size is None]
    if missing and settings.table_columns():
        raise UserError(f"loss '{name}' keeps a state per anchor and needs {' and '.join(missing)}")
    for key, size in sizes.items():
        if size is not None and not _is_whole(size):
            raise UserError(f"loss '{name}': {key}={size!r} must be a whole number")
    for concern in settings.concerns():
        warnings.warn(concern, stacklevel=2)
    return ContrastiveLoss(settings, num_images, num_texts)


def _is_whole(size: object) -> bool:
    return isinstance(size, numbers.Integral) and not isinstance(size, bool)
