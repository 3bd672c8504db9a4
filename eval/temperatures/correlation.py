"""Correlate two quantities by rank, with a bootstrap interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..captions import rank_correlation

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


def correlate(first: np.ndarray, second: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Correlation:
    """Return Spearman's correlation of two ``[n]`` arrays with a 95 % interval.

    The points are drawn again with replacement, ``resamples`` times; the bounds are the 2.5th and 97.5th percentiles of
    the correlations. Draws in which one quantity is constant are left out.
    """
    value = rank_correlation(first, second)
    low = high = float("nan")
    if not np.isnan(value):
        rng = np.random.default_rng(seed)
        picks = (rng.integers(len(first), size=len(first)) for _ in range(resamples))
        drawn = np.array([rank_correlation(first[pick], second[pick]) for pick in picks])
        drawn = drawn[~np.isnan(drawn)]
        if len(drawn):
            low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    return Correlation(value, low, high, len(first))
