"""Draw training and validation images by class, from a seed."""

from __future__ import annotations

import numpy as np

from bimodal_cl.errors import UserError


def hold_out(targets: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split images into a training and a validation part with equal shares of every class.

    A class of at least two images has at least one in either part; the only image of a class is for training. Images
    with several classes are split without regard to them.

    Args:
        targets: int64 ``[images]``, or 0 or 1 for every class ``[images, classes]``.
        share: of the validation part, between 0 and 1.
        seed: of the choice.

    Returns:
        The indices of the training and of the validation images, ascending.

    Raises:
        UserError: no image would be left for one of the parts.
    """
    held = np.zeros(len(targets), dtype=bool)
    for rows in _permuted(targets, np.random.default_rng(seed)):
        held[rows[: min(max(1, round(share * len(rows))), len(rows) - 1)]] = True
    if not held.any():
        raise UserError("no class has two training images, so none can be held out for validation")
    return np.flatnonzero(~held), np.flatnonzero(held)


def draw_shots(targets: np.ndarray, shots: int, seed: int, draw: int, at_most: bool = False) -> np.ndarray:
    """Draw a number of images of each class. Of one seed and draw, fewer shots are a part of more.

    Args:
        targets: int64 ``[images]``.
        shots: number of images of each class, at least 1.
        seed: of the choice.
        draw: number of the draw, from 0.
        at_most: whether a class may have fewer.

    Returns:
        Their indices, ascending.

    Raises:
        ValueError: a class has fewer, without ``at_most``.
    """
    classes = _permuted(targets, np.random.default_rng([seed, draw]))
    if not at_most and min(map(len, classes)) < shots:
        raise ValueError(f"a class has {min(map(len, classes))} images, fewer than {shots}")
    return np.sort(np.concatenate([rows[:shots] for rows in classes]))


def _permuted(targets: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
    """Return the permuted indices of each class that has images; of all images where they have several classes."""
    if targets.ndim == 2:
        return [generator.permutation(len(targets))]
    return [generator.permutation(np.flatnonzero(targets == each)) for each in np.unique(targets)]
