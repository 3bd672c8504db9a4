"""Head, medium and tail: the bounds, shares worked out by hand, and resamples."""

from __future__ import annotations

import numpy as np
import pytest

from bimodal_cl.metrics.bootstrap import bootstrap
from bimodal_cl.scoring.frequency_buckets import FrequencyBuckets, bucket_of_count


def test_bounds_are_those_of_imagenet_lt():
    counts = (0, 19, 20, 100, 101, 5000)
    assert [bucket_of_count(count) for count in counts] == ["tail", "tail", "medium", "medium", "head", "head"]
    assert [bucket_of_count(count, (1, 19)) for count in counts[:3]] == ["tail", "medium", "head"]


def test_each_bucket_is_a_share_of_its_images():
    targets = np.array([0, 0, 0, 0, 1, 1, 2])
    hits = np.array([True, True, True, False, True, False, False])
    buckets = FrequencyBuckets.of_images(["head", "tail", "tail"], targets, hits)
    assert buckets.scores() == {"acc1_head": 0.75, "acc1_tail": pytest.approx(1 / 3)}


def test_resamples_are_shares_of_the_images_that_were_drawn():
    rng = np.random.default_rng(0)
    targets, hits = rng.integers(0, 3, 60), rng.random(60) < 0.5
    targets[targets == 2] = 1
    targets[0] = 2  # one image, which many resamples do not draw
    buckets = FrequencyBuckets.of_images(["head", "medium", "tail"], targets, hits)
    samples = bootstrap(buckets.resample, 60, resamples=50, seed=0)
    drawn = np.random.default_rng(0).integers(0, 60, size=(50, 60))
    for name, label in (("acc1_head", 0), ("acc1_medium", 1)):
        expected = [hits[rows][targets[rows] == label].mean() for rows in drawn]
        assert samples[name] == pytest.approx(expected)
    assert (samples["acc1_tail"] == float(hits[0])).all()
