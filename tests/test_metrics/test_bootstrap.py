"""Bootstrap intervals: coverage, the binomial's closed form, clusters, and weights against resampled data."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from bimodal_cl.metrics import average_precision, mean_per_class_recall, median_rank
from bimodal_cl.metrics.bootstrap import (
    bootstrap,
    compare_paired,
    draw_weights,
    percentile_interval,
    weighted_average_precisions,
    weighted_class_recalls,
    weighted_means,
    weighted_medians,
)


def mean_samples(values, clusters=None, **options):
    """Return resampled means of values, drawn one by one or by cluster."""
    clusters = np.arange(len(values)) if clusters is None else clusters
    totals, sizes = np.bincount(clusters, weights=values)[:, None], np.bincount(clusters)
    return bootstrap(lambda weights: {"mean": weighted_means(weights, totals, sizes)[:, 0]}, len(sizes), **options)[
        "mean"
    ]


def all_weights(num_units, resamples=40, seed=3):
    return np.concatenate(list(draw_weights(num_units, resamples, seed)))


def resampled(weights):
    """Return each resample as rows of the data."""
    return [np.repeat(np.arange(len(row)), row) for row in weights]


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        low, high = percentile_interval(mean_samples(rng.random(200) < 0.3, resamples=400))
        covered.append(low <= 0.3 <= high)
    assert 0.91 <= np.mean(covered) <= 0.98  # standard error of the share: 0.013


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_the_interval_of_a_share_is_that_of_the_binomial(share):
    hits = np.arange(10_000) < share * 10_000
    low, high = percentile_interval(mean_samples(hits, resamples=4000))
    half = 1.96 * math.sqrt(share * (1 - share) / 10_000)
    assert low == pytest.approx(share - half, abs=0.1 * half)
    assert high == pytest.approx(share + half, abs=0.1 * half)


def test_results_repeat_and_do_not_depend_on_the_blocks():
    values = np.random.default_rng(1).random(333)
    first = mean_samples(values)
    assert first.tobytes() == mean_samples(values).tobytes()
    assert first.tobytes() != mean_samples(values, seed=1).tobytes()
    assert mean_samples(values, resamples=200).tobytes() == first[:200].tobytes()


def test_values_of_a_cluster_are_drawn_together():
    rng = np.random.default_rng(2)
    per_cluster = (rng.random(400) < 0.4).astype(np.float64)
    values, clusters = np.repeat(per_cluster, 5), np.repeat(np.arange(400), 5)
    assert mean_samples(values, clusters).std() == pytest.approx(mean_samples(per_cluster).std())
    apart = mean_samples(values).std()
    assert mean_samples(values, clusters).std() / apart == pytest.approx(math.sqrt(5), rel=0.1)


def test_clusters_of_unequal_sizes_weigh_by_their_values():
    values, clusters = np.array([1.0, 1.0, 1.0, 0.0]), np.array([0, 0, 0, 1])
    weights = all_weights(2)
    found = weighted_means(weights, np.bincount(clusters, weights=values)[:, None], np.bincount(clusters))[:, 0]
    expected = [
        values[np.concatenate([np.flatnonzero(clusters == unit) for unit in rows])] for rows in resampled(weights)
    ]
    assert found == pytest.approx([each.mean() for each in expected])


def test_weighted_figures_equal_those_of_the_resampled_data():
    rng = np.random.default_rng(4)
    weights = all_weights(25)
    draws = resampled(weights)
    ranks, targets, predictions = rng.integers(1, 9, 25), rng.integers(0, 6, 25), rng.integers(0, 6, 25)
    assert weighted_medians(weights, ranks).tolist() == [median_rank(ranks[rows]) for rows in draws]
    recalls = weighted_class_recalls(weights, predictions == targets, targets)
    assert recalls == pytest.approx([mean_per_class_recall(predictions[rows], targets[rows]) for rows in draws])
    scores, shown = rng.integers(0, 5, (25, 4)).astype(np.float64), (rng.random((25, 4)) < 0.5).astype(np.int64)
    shown[:, 3] = 0  # a class of no image
    found = weighted_average_precisions(weights, scores, shown)
    assert found == pytest.approx([average_precision(scores[rows], shown[rows]).mean() for rows in draws])


def test_a_better_model_is_told_from_a_worse_one_only_where_the_data_suffice():
    rng = np.random.default_rng(5)
    difficulty = rng.random(2000)
    better, worse = difficulty < 0.65, difficulty < 0.60  # right wherever the worse one is
    found = compare_paired(better.mean(), worse.mean(), mean_samples(better), mean_samples(worse))
    assert found.low < found.difference < found.high and found.difference == better.mean() - worse.mean()
    assert found.distinguishable and found.p_value == pytest.approx(2 / 1001)
    # The pairing makes the interval far narrower than those of both models apart suggest.
    assert found.high - found.low < 0.5 * math.hypot(mean_samples(better).std(), mean_samples(worse).std()) * 3.92
    few = compare_paired(better[:20].mean(), worse[:20].mean(), mean_samples(better[:20]), mean_samples(worse[:20]))
    assert not few.distinguishable and few.p_value > 0.05


def test_a_model_does_not_differ_from_itself():
    samples = mean_samples(np.arange(50) < 20)
    found = compare_paired(0.4, 0.4, samples, samples)
    assert (found.difference, found.low, found.high, found.p_value, found.distinguishable) == (0, 0, 0, 1, False)


def test_p_values_are_uniform_where_the_models_are_equally_good():
    rng = np.random.default_rng(6)
    p_values = []
    for _ in range(200):
        first, second = rng.random(150) < 0.5, rng.random(150) < 0.5
        samples = [mean_samples(each, resamples=300) for each in (first, second)]
        p_values.append(compare_paired(first.mean(), second.mean(), *samples).p_value)
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.10
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.1)


def test_a_thousand_resamples_of_ten_thousand_images_take_well_under_a_second():
    hits = np.arange(10_000) < 4000
    mean_samples(hits, resamples=10)
    start = time.process_time()
    mean_samples(hits)
    assert time.process_time() - start < 2.0  # far above what it takes, since other programs share the cores


def test_refuses_with_values():
    with pytest.raises(ValueError, match="num_units=0 and resamples=5 must be at least 1"):
        list(draw_weights(0, 5))
    with pytest.raises(ValueError, match=r"level=1\.0 must be between 0 and 1"):
        percentile_interval(np.ones(3), 1.0)
