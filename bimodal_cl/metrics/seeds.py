"""Estimate scores of training recipes from a few seeds, compare them, and correct for the number of comparisons.

A recipe's mean score is uncertain for two reasons: another seed trains another model, and other test data ask other
questions. The variance of the mean is the sum of both,

    V = s^2 / n + v,

with ``s^2`` the variance between seeds, **pooled** over the recipes that have several (as in an analysis of variance:
two seeds alone say little about it), ``n`` the recipe's seeds, and ``v`` the bootstrap variance of the mean over the
test data. The interval is ``mean +- t sqrt(V)`` with Student's t at the degrees of freedom of Welch and Satterthwaite,
``V^2 / ((s^2 / n)^2 / dof(s^2))``. Differences of two recipes have ``V = s^2 (1/n + 1/m) + v`` with ``v`` of the
difference on the same resamples.

So where the test data are the larger chance, the interval is the bootstrap's; where the seeds are, it is Student's,
wide for few seeds. Drawing seeds again (a hierarchical bootstrap) would halve the variance of two seeds. A recipe of
one run has ``s^2 / n`` = 0: what is said of it holds for that model alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtr, stdtrit

from bimodal_cl.metrics.bootstrap import LEVEL


@dataclass(frozen=True)
class SeedVariance:
    """The variance of a score between seeds.

    Attributes:
        variance: of one seed's score.
        dof: its degrees of freedom; 0 where no recipe has two seeds.
    """

    variance: float = 0.0
    dof: int = 0


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference with its interval.

    Attributes:
        value: the mean, or the difference of two means.
        low: lower end of the interval; NaN where nothing is known about the uncertainty.
        high: upper end, likewise.
        p_value: two-sided, of the value being 0; NaN likewise.
        seed_error: standard error from the seeds.
        data_error: standard error from the test data.
        dof: degrees of freedom of Student's t; infinite where the seeds add nothing.
    """

    value: float
    low: float
    high: float
    p_value: float
    seed_error: float
    data_error: float
    dof: float


def pool_variance(groups: Sequence[Sequence[float]]) -> SeedVariance:
    """Pool the variance within groups: squares around each group's mean, over the degrees of freedom.

    Args:
        groups: the scores of each recipe's seeds; groups of one add nothing.
    """
    squares, dof = 0.0, 0
    for group in groups:
        if len(group) > 1:
            mean = math.fsum(group) / len(group)
            squares += math.fsum((each - mean) ** 2 for each in group)
            dof += len(group) - 1
    return SeedVariance(squares / dof, dof) if dof else SeedVariance()


def estimate(
    value: float, num_seeds: Sequence[int], between: SeedVariance, data_variance: float | None, level: float = LEVEL
) -> Estimate:
    """Return the interval of a mean over seeds, or of a difference of two such means.

    Args:
        value: the mean or difference.
        num_seeds: the seeds of the recipe, or of both; 1 for a model that stands for itself.
        between: the variance between seeds.
        data_variance: of the value over resamples of the test data, >= 0; None: not known, counted as 0.
        level: of the interval.
    """
    seeds = between.variance * math.fsum(1 / count for count in num_seeds if count > 1)
    # Seeds of equal scores, such as rounded ones, say nothing without the test data's part.
    known = data_variance is not None or seeds > 0
    total = seeds + (data_variance or 0.0)
    nan = math.nan
    if not known:
        return Estimate(value, nan, nan, nan, 0.0, nan, nan)
    dof = between.dof * (total / seeds) ** 2 if seeds > 0 else math.inf
    error = math.sqrt(total)
    half = error * float(stdtrit(dof, (1 + level) / 2))
    certain = 1.0 if value == 0 else 0.0
    p_value = 2 * float(stdtr(dof, -abs(value) / error)) if error > 0 else certain
    return Estimate(value, value - half, value + half, p_value, math.sqrt(seeds), math.sqrt(data_variance or 0.0), dof)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm (1979): at level a, the chance of any false finding among them is at most a.

    NaN is no comparison: it stays NaN and is not counted.
    """
    known = sorted((value, place) for place, value in enumerate(p_values) if not math.isnan(value))
    corrected, largest = [math.nan] * len(p_values), 0.0
    for rank, (value, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        corrected[place] = largest
    return corrected
