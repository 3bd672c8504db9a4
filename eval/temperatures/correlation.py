"""Correlate two quantities by rank, with a bootstrap interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 1000


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation with the bounds of its 95 % interval; NaN where it is not defined.

    Attributes:
        value: in [-1, 1].
        low, high: percentile bootstrap over the points.
        num_points: number of points.
    """

    value: float
    low: float
    high: float
    num_points: int

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "not defined"
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"

    def as_json(self) -> dict[str, Any]:
        """Return the values for a JSON file; null where not defined."""
        value, low, high = (None if np.isnan(each) else each for each in (self.value, self.low, self.high))
        return {"spearman": value, "low": low, "high": high, "num_points": self.num_points}


def correlate(
    first: np.ndarray,
    second: np.ndarray,
    given: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Correlation:
    """Return Spearman's correlation of two ``[n]`` arrays with a 95 % interval.

    The points are drawn again with replacement, ``resamples`` times; the bounds are the 2.5th and 97.5th percentiles of
    the correlations. Draws in which one quantity is constant are left out.

    Args:
        first, second: the quantities; equal values have their mean rank.
        given: a third quantity ``[n]`` whose linear relation to both ranks is taken out: the partial rank correlation
            ``(r_12 - r_13 r_23) / sqrt((1 - r_13^2) (1 - r_23^2))``. A constant one changes nothing.
        groups: ``[n]``, of each point; whole groups are drawn, since their points are not independent. None: points.
        resamples: number of draws.
        seed: of the draws.
    """
    places = [np.unique(each, return_inverse=True)[1] for each in (first, second, given) if each is not None]
    value = _rank_correlation(places, np.ones(len(first)))
    low = high = float("nan")
    if not np.isnan(value):
        members = np.arange(len(first)) if groups is None else np.unique(groups, return_inverse=True)[1]
        size = int(members.max()) + 1
        rng = np.random.default_rng(seed)
        picks = (rng.integers(size, size=size) for _ in range(resamples))
        times = (np.bincount(pick, minlength=size)[members].astype(np.float64) for pick in picks)
        drawn = np.array([_rank_correlation(places, weights) for weights in times])
        drawn = drawn[~np.isnan(drawn)]
        if len(drawn):
            low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    return Correlation(value, low, high, len(first))


def _rank_correlation(places: list[np.ndarray], weights: np.ndarray) -> float:
    """Correlate the ranks of two quantities, without what a third explains, of points that count ``weights`` times.

    Sorting once is enough for all draws: a draw only changes how often each value occurs.

    Args:
        places: of each quantity, the place ``[n]`` of each point's value among the sorted different values.
        weights: ``[n]``, >= 0.

    Returns:
        The correlation; NaN if one of the two is constant, or the third one explains it wholly.
    """
    ranks = np.empty((len(places), len(weights)))
    constant = []
    for number, place in enumerate(places):
        counts = np.bincount(place, weights)
        of_value = np.cumsum(counts) - (counts - 1) / 2
        ranks[number] = (of_value - counts @ of_value / max(counts.sum(), 1))[place]
        constant.append(np.count_nonzero(counts) < 2)
    if constant[0] or constant[1]:
        return float("nan")
    products = (ranks * weights) @ ranks.T
    scale = np.sqrt(np.diag(products))
    if len(places) == 2 or constant[2]:
        return float(products[0, 1] / (scale[0] * scale[1]))
    matrix = products / np.outer(scale, scale)
    rest = (1 - matrix[0, 2] ** 2) * (1 - matrix[1, 2] ** 2)
    return float("nan") if rest < 1e-12 else float((matrix[0, 1] - matrix[0, 2] * matrix[1, 2]) / np.sqrt(rest))
