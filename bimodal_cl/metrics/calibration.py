"""Calibration of single-label classification: expected calibration error, its bins, and the temperature that fits best.

A probability is the softmax of similarities divided by a temperature ``tau``, and an image's **confidence** is the
largest of them. All values depend on neither the order of the images nor the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from bimodal_cl.metrics.arrays import exact_mean

NUM_BINS = 15
# Of cosines, 1e-4 makes probabilities of 0 and 1, and 100 makes all of them equal.
SMALLEST_TAU, LARGEST_TAU = 1e-4, 1e2

_BLOCK_ELEMENTS = 2**22
_MAX_STEPS = 100
_TOLERANCE = 1e-9  # relative, of 1 / tau


@dataclass(frozen=True)
class Bin:
    """The images whose confidence lies in ``(low, high]``.

    Attributes:
        low: lower end.
        high: upper end.
        count: number of images, at least 1.
        confidence: their mean confidence.
        accuracy: the share of them that is classified correctly.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def confidences(sims: Float[np.ndarray, "images classes"], tau: float) -> Float[np.ndarray, " images"]:
    """Compute the largest probability of every image.

    Args:
        sims: similarities, no temperature.
        tau: the temperature, above 0.

    Returns:
        float64, above 0 and at most 1.
    """
    return np.concatenate([1 / np.exp(block / tau).sum(axis=1) for block in _below_largest(sims)])


def reliability_bins(
    confidence: Float[np.ndarray, " images"], hits: Bool[np.ndarray, " images"], num_bins: int = NUM_BINS
) -> list[Bin]:
    """Sort images into bins of equal width by their confidence, and average each.

    Source: Guo, Pleiss, Sun & Weinberger, ICML 2017, section 2.

    Args:
        confidence: of every image, in ``(0, 1]``.
        hits: whether it is classified correctly.
        num_bins: number of bins between 0 and 1.

    Returns:
        The bins that hold images, in ascending order.
    """
    places = _bin_of(confidence, num_bins)
    bins = []
    for place in np.unique(places).tolist():
        here = places == place
        count = int(here.sum())
        mean = exact_mean(confidence[here].tolist())
        bins.append(Bin(place / num_bins, (place + 1) / num_bins, count, mean, int(hits[here].sum()) / count))
    return bins


def expected_calibration_error(bins: list[Bin]) -> float:
    """Compute the mean of ``|accuracy - confidence|`` over bins, weighted by their images.

    Source: Guo, Pleiss, Sun & Weinberger, ICML 2017, equation 3. It is biased: noise in the accuracies adds to it, the
    more so the fewer images there are.

    Args:
        bins: from :func:`reliability_bins`.

    Returns:
        A fraction in ``[0, 1]``; 0 is best.
    """
    total = sum(each.count for each in bins)
    return math.fsum(each.count * abs(each.accuracy - each.confidence) for each in bins) / total


def calibration_gaps(
    confidence: Float[np.ndarray, " images"], hits: Bool[np.ndarray, " images"], num_bins: int = NUM_BINS
) -> Float[np.ndarray, " images"]:
    """Return a share of every image in the expected calibration error, which is their mean.

    The share is ``hit - confidence`` where the image's bin is right more often than it says, else ``confidence - hit``.
    So the error on a resample, with the bins' signs as in the data, is a weighted mean. With signs of its own, noise
    would add to every resample's error, and an interval would lie above the error of the data.

    Args:
        confidence: of every image, in ``(0, 1]``.
        hits: whether it is classified correctly.
        num_bins: number of bins between 0 and 1.
    """
    places, gaps = _bin_of(confidence, num_bins), hits - confidence
    signs = np.ones(num_bins)
    for place in np.unique(places).tolist():
        signs[place] = 1.0 if math.fsum(gaps[places == place].tolist()) >= 0 else -1.0
    return gaps * signs[places]


def fit_tau(sims: Float[np.ndarray, "images classes"], targets: Int[np.ndarray, " images"]) -> float:
    """Find the temperature with the smallest mean negative log-likelihood (temperature scaling).

    Source: Guo, Pleiss, Sun & Weinberger, ICML 2017, section 4.2. The mean is convex in ``1 / tau``, and Newton's
    method between two bounds finds the zero of its derivative, the mean of ``E[sim] - sim of the target``.

    Args:
        sims: similarities, no temperature.
        targets: the class of every image.

    Returns:
        A value in ``[SMALLEST_TAU, LARGEST_TAU]``: the smallest where every target is the most similar class, the
        largest where targets are no more similar than other classes.
    """
    low, high = 1 / LARGEST_TAU, 1 / SMALLEST_TAU
    if _slope(sims, targets, low)[0] >= 0:
        return LARGEST_TAU
    if _slope(sims, targets, high)[0] <= 0:
        return SMALLEST_TAU
    beta = math.sqrt(low * high)
    for _ in range(_MAX_STEPS):
        slope, curvature = _slope(sims, targets, beta)
        low, high = (low, beta) if slope >= 0 else (beta, high)
        following = beta - slope / curvature if curvature > 0 else 0.0
        if not low < following < high:
            following = math.sqrt(low * high)
        if abs(following - beta) <= _TOLERANCE * beta:
            break
        beta = following
    return 1 / beta


def _slope(sims: np.ndarray, targets: np.ndarray, beta: float) -> tuple[float, float]:
    """Return the first and second derivative of the mean negative log-likelihood by ``beta = 1 / tau``."""
    slopes: list[float] = []
    curvatures: list[float] = []
    start = 0
    for block in _below_largest(sims):
        wanted = np.take_along_axis(block, targets[start : start + len(block), None], axis=1)[:, 0]
        shares = np.exp(beta * block)
        total = shares.sum(axis=1)
        mean = (shares * block).sum(axis=1) / total
        slopes += (mean - wanted).tolist()
        curvatures += ((shares * block**2).sum(axis=1) / total - mean**2).tolist()
        start += len(block)
    return exact_mean(slopes), exact_mean(curvatures)


def _below_largest(sims: np.ndarray) -> Iterator[np.ndarray]:
    """Yield blocks of rows as float64, less the largest value of each row."""
    rows = max(1, _BLOCK_ELEMENTS // sims.shape[1])
    for start in range(0, len(sims), rows):
        block = sims[start : start + rows].astype(np.float64)
        yield block - block.max(axis=1, keepdims=True)


def _bin_of(confidence: np.ndarray, num_bins: int) -> np.ndarray:
    return np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
