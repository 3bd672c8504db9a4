"""Estimate how far a score is uncertain: percentile bootstrap intervals, and paired comparisons of two models.

The units that were scored (images, or images with all their captions) are drawn anew with replacement as often as there
are units, and every figure is computed again on each such resample (Efron & Tibshirani 1993, chapters 13 and 16). A
resample is a row of **weights**: how often each unit was drawn. Units that belong together, as the captions of one
image, share a weight, so the interval allows for their dependence (a cluster bootstrap).

The draws depend on the number of units and the seed alone. So figures of two models on the same units are paired:
resample by resample, both are computed on the same draws. Sums are sums of integers, hence no result depends on the
number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

RESAMPLES = 1000
SEED = 0
LEVEL = 0.95

_BLOCK_ELEMENTS = 2**20  # weights held at once: they fit a processor's cache
_GRID = 2.0**30  # values are rounded to its multiples, so that float64 sums them exactly

# Weights int64 [resamples, units] in; figures by name, float64 [resamples], out.
Statistic = Callable[[np.ndarray], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Difference:
    """A paired comparison of two models by one figure.

    Attributes:
        difference: the first model's figure minus the second's, on the data as they are.
        low: lower end of the interval of the difference.
        high: upper end.
        p_value: two-sided: twice the share of resamples in which the difference has the other sign or is 0.
    """

    difference: float
    low: float
    high: float
    p_value: float

    @property
    def distinguishable(self) -> bool:
        """Whether the interval excludes 0."""
        return not self.low <= 0.0 <= self.high


def bootstrap(
    statistic: Statistic, num_units: int, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, np.ndarray]:
    """Compute figures on resamples of the units.

    Args:
        statistic: computes figures for weights; it is called with some resamples at a time.
        num_units: number of units, at least 1.
        resamples: number of resamples, at least 1.
        seed: of the draws.

    Returns:
        float64 ``[resamples]`` for each figure.

    Raises:
        ValueError: a number is below 1.
    """
    blocks = [statistic(weights) for weights in draw_weights(num_units, resamples, seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def draw_weights(num_units: int, resamples: int = RESAMPLES, seed: int = SEED) -> Iterator[np.ndarray]:
    """Yield blocks of weights, int64 ``[some resamples, units]``; every row sums to the number of units.

    Raises:
        ValueError: a number is below 1.
    """
    if num_units < 1 or resamples < 1:
        raise ValueError(f"num_units={num_units} and resamples={resamples} must be at least 1")
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_ELEMENTS // num_units)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = generator.integers(0, num_units, size=(rows, num_units)) + num_units * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * num_units).reshape(rows, num_units)


def percentile_interval(samples: Float[np.ndarray, " resamples"], level: float = LEVEL) -> tuple[float, float]:
    """Return the ends between which the middle share ``level`` of the resampled figures lies.

    Raises:
        ValueError: ``level`` is not between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level={level} must be between 0 and 1")
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare_paired(
    first: float,
    second: float,
    first_samples: Float[np.ndarray, " resamples"],
    second_samples: Float[np.ndarray, " resamples"],
    level: float = LEVEL,
) -> Difference:
    """Compare a figure of two models that were resampled with the same weights.

    Args:
        first: the first model's figure on the data as they are.
        second: the second model's.
        first_samples: the first model's figures on resamples.
        second_samples: the second model's, on the same resamples.
        level: of the interval.
    """
    differences = first_samples - second_samples
    low, high = percentile_interval(differences, level)
    rarer = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    # One is added to both counts, so that no p-value is 0: the data as they are count as a resample.
    p_value = min(1.0, 2 * (1 + rarer) / (1 + len(differences)))
    return Difference(first - second, low, high, p_value)


def weighted_means(
    weights: Int[np.ndarray, "resamples units"],
    totals: Float[np.ndarray, "units figures"],
    sizes: Int[np.ndarray, " units"],
) -> Float[np.ndarray, "resamples figures"]:
    """Compute means of values on resamples.

    Args:
        weights: how often each unit was drawn.
        totals: sums of each unit's values; they are rounded to multiples of ``2**-30``.
        sizes: how many values a unit has, at least one in every resample.
    """
    drawn = weights.astype(np.float64)
    return (drawn @ (np.round(totals * _GRID) / _GRID)) / (drawn @ sizes.astype(np.float64))[:, None]


def weighted_medians(
    weights: Int[np.ndarray, "resamples values"], values: Int[np.ndarray, " values"]
) -> Float[np.ndarray, " resamples"]:
    """Compute medians on resamples; for an even number of values, the mean of the middle two."""
    order = np.argsort(values, kind="stable")
    seen = weights[:, order].cumsum(axis=1)
    ordered, total = values[order], seen[:, -1:]
    middle = [ordered[(seen <= place).sum(axis=1)] for place in ((total - 1) // 2, total // 2)]
    return (middle[0] + middle[1]) / 2


def weighted_class_recalls(
    weights: Int[np.ndarray, "resamples images"], hits: np.ndarray, targets: Int[np.ndarray, " images"]
) -> Float[np.ndarray, " resamples"]:
    """Compute the mean recall per class on resamples, over the classes that occur in each.

    Args:
        weights: how often each image was drawn.
        hits: bool ``[images]``, whether its class was predicted.
        targets: the class of each image.
    """
    order = np.argsort(targets, kind="stable")
    starts = np.flatnonzero(np.diff(targets[order], prepend=-1))
    by_class = weights[:, order]
    counts = np.add.reduceat(by_class, starts, axis=1)
    recalled = np.add.reduceat(by_class * hits[order], starts, axis=1)
    return (recalled / np.maximum(counts, 1)).sum(axis=1) / (counts > 0).sum(axis=1)


def weighted_average_precisions(
    weights: Int[np.ndarray, "resamples images"],
    scores: Float[np.ndarray, "images classes"],
    targets: Int[np.ndarray, "images classes"],
) -> Float[np.ndarray, " resamples"]:
    """Compute the mean average precision of multi-label images on resamples.

    A class that the data do not show has 0, as in ``bimodal_cl.metrics.average_precision``; one that only a resample
    does not show is left out of its mean.
    """
    total, shown = np.zeros(len(weights)), np.zeros(len(weights))
    in_data = int((targets.sum(axis=0) > 0).sum())
    for column, right in zip(scores.T, targets.T.astype(bool), strict=True):
        if not right.any():
            continue
        order = np.lexsort((right, -column))
        places = np.flatnonzero(right[order])
        drawn = weights[:, order]
        seen = drawn.cumsum(axis=1)[:, places]
        times = drawn[:, places]
        found = times.cumsum(axis=1)
        # The copies of an image stand one behind another.
        precision = np.zeros(len(weights))
        for copy in range(1, int(times.max(initial=0)) + 1):
            after = times - copy
            precision += np.where(after >= 0, (found - after) / np.maximum(seen - after, 1), 0.0).sum(axis=1)
        count = found[:, -1]
        total += precision / np.maximum(count, 1)
        shown += count > 0
    return total / np.maximum(shown, 1) * (in_data / targets.shape[1])
