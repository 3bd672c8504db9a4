"""Intervals over seeds and test data: their limits are Student's and the normal ones, and they cover what they say."""

import math

import numpy as np
import pytest
from scipy import stats

from bimodal_cl.metrics.seeds import SeedVariance, estimate, holm, pool_variance


def test_seeds_alone_are_students_interval():
    seeds = [0.31, 0.35, 0.32]
    found = estimate(float(np.mean(seeds)), [3], pool_variance([seeds]), None)
    low, high = stats.t.interval(0.95, 2, np.mean(seeds), stats.sem(seeds))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.p_value == pytest.approx(stats.ttest_1samp(seeds, 0).pvalue)


def test_two_groups_of_seeds_alone_are_students_test_with_pooled_variance():
    one, other = [0.31, 0.35, 0.32], [0.27, 0.30]
    found = estimate(float(np.mean(one) - np.mean(other)), [3, 2], pool_variance([one, other]), None)
    theirs = stats.ttest_ind(one, other)
    assert found.p_value == pytest.approx(theirs.pvalue)
    interval = theirs.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_one_run_has_the_interval_of_the_test_data():
    found = estimate(0.4, [1], SeedVariance(0.01, 4), 0.02**2)
    assert (found.low, found.high) == pytest.approx((0.4 - 1.959964 * 0.02, 0.4 + 1.959964 * 0.02))
    assert found.dof == math.inf and found.seed_error == 0


def test_nothing_known_is_no_interval():
    found = estimate(0.4, [1], SeedVariance(), None)
    assert found.value == 0.4 and all(map(math.isnan, (found.low, found.high, found.p_value)))


def test_no_spread_at_all_is_an_interval_of_width_0():
    found = estimate(0.0, [2], SeedVariance(0.0, 1), 0.0)
    assert (found.low, found.high, found.p_value) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(("seed_spread", "data_spread"), [(1.0, 0.0), (1.0, 1.0), (0.5, 2.0), (0.0, 1.0)])
def test_intervals_of_four_recipes_with_two_seeds_cover_the_truth(seed_spread, data_spread):
    """`data_spread` is of the mean of a recipe; the seeds of one recipe share their test data."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(2000):
        recipes = seed_spread * rng.standard_normal((4, 2)) + data_spread * rng.standard_normal((4, 1))
        first = estimate(recipes[0].mean(), [2], pool_variance(recipes.tolist()), data_spread**2)
        covered.append(first.low <= 0 <= first.high)
    assert 0.93 < np.mean(covered) < 0.97


def test_holm_corrects_as_by_hand_and_leaves_out_what_was_not_compared():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    corrected = holm([0.02, math.nan, 0.9])
    assert corrected[0] == 0.04 and math.isnan(corrected[1]) and corrected[2] == 0.9
    assert holm([]) == []
