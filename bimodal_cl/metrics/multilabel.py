"""Metrics of multi-label classification: average precision of each class, and its mean."""

from __future__ import annotations

import math

import numpy as np

from bimodal_cl.metrics.arrays import ArrayLike, as_integers, as_matrix, as_tensor, exact_mean


def average_precision(scores: ArrayLike, targets: ArrayLike) -> np.ndarray:
    """Compute the average precision of every class, on images that may show several classes.

    For each class, images are sorted by its scores, best first; the average precision is the mean, over the images that
    show the class, of the precision up to that image. A class that no image shows has 0, and a wrong image that ties
    with a right one is ranked before it. The mean over all classes is CLIP_benchmark's ``mean_average_precision``.

    Args:
        scores: ``[images, classes]``, any real numbers; only their order within a column matters.
        targets: ``[images, classes]``, 1 where an image shows a class, else 0.

    Returns:
        float64 ``[classes]``, fractions in ``[0, 1]``.

    Raises:
        ValueError: shapes do not match, a value is not finite, or a target is neither 0 nor 1.

    Example:
        >>> average_precision([[0.9], [0.8], [0.7]], [[1], [0], [1]]).round(4).tolist()
        [0.8333]
    """
    values = as_matrix(scores, "scores").cpu().numpy()
    shown = as_tensor(targets, "targets").cpu().numpy()
    if shown.shape != values.shape:
        raise ValueError(f"targets must have the shape of scores, {values.shape}, got {shown.shape}")
    if not np.isin(shown, (0, 1)).all():
        raise ValueError("targets must hold only 0 and 1")
    found = np.zeros(values.shape[1])
    for index, (column, right) in enumerate(zip(values.T, shown.T.astype(bool), strict=True)):
        order = np.lexsort((right, -column))
        places = np.flatnonzero(right[order]) + 1
        found[index] = exact_mean((np.arange(1, len(places) + 1) / places).tolist()) if len(places) else 0.0
    return found


def mean_average_precision(scores: ArrayLike, targets: ArrayLike) -> float:
    """Compute the mean of :func:`average_precision` over all classes, as CLIP_benchmark does; same arguments."""
    return exact_mean(average_precision(scores, targets).tolist())


def chance_average_precision(num_images: int, num_right: ArrayLike) -> float:
    """Compute the expected mean average precision of images in random order.

    For a class shown by ``m`` of ``n`` images, with ``H_n = 1 + 1/2 + ... + 1/n``, it is
    ``H_n/n + (m - 1)/(n - 1) (1 - H_n/n)``, since a right image at position ``k`` has on average
    ``(k - 1)(m - 1)/(n - 1)`` other right images before it.

    Args:
        num_images: ``n``, at least 1.
        num_right: ``m`` of every class, ``[classes]``, each in ``[0, n]``; a class with 0 has average precision 0.

    Returns:
        A fraction in ``[0, 1]``.
    """
    first = math.fsum(1 / place for place in range(1, num_images + 1)) / num_images
    right = as_integers(as_tensor(num_right, "num_right"), "num_right").tolist()
    return exact_mean([(first + (m - 1) / max(1, num_images - 1) * (1 - first)) if m else 0.0 for m in right])
