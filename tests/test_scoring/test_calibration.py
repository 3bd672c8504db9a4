"""Calibration of a classifier: cross-fitted temperatures, halves that follow from the features, and resamples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from bimodal_cl.metrics.bootstrap import bootstrap, percentile_interval
from bimodal_cl.metrics.calibration import confidences, expected_calibration_error, fit_tau, reliability_bins
from bimodal_cl.scoring.calibration import calibrate
from bimodal_cl.scoring.classifier import Classifier, candidate_similarities, classify

TRUE_TAU = 0.3


@pytest.fixture(scope="module")
def scored():
    """6,001 images whose classes are drawn by the softmax at ``TRUE_TAU`` of random features."""
    generator = torch.Generator().manual_seed(0)
    classes = normalize(torch.randn(5, 8, generator=generator), dim=1)
    classifier = Classifier(classes, torch.arange(5), torch.arange(5))
    images = normalize(torch.randn(6001, 8, generator=generator), dim=1)
    targets = torch.multinomial((images @ classes.T / TRUE_TAU).softmax(dim=1), 1, generator=generator)[:, 0]
    ranks, _ = classify(classifier, images, targets)
    return classifier, images, targets, ranks


def test_the_fitted_temperature_calibrates_a_model_whose_own_does_not(scored):
    found = calibrate(*scored, tau=TRUE_TAU / 5)
    scores = found.scores()
    assert scores["ece"] > 0.05 and scores["ece_fitted"] < 0.02
    assert found.fitted_tau == pytest.approx(TRUE_TAU, rel=0.05)
    details = found.details()
    assert details["temperature"] == TRUE_TAU / 5
    for name, key in (("bins", "ece"), ("bins_fitted", "ece_fitted")):
        assert sum(each["count"] for each in details[name]) == 6001
        gaps = [each["count"] * abs(each["accuracy"] - each["confidence"]) for each in details[name]]
        assert sum(gaps) / 6001 == pytest.approx(scores[key], rel=1e-12)


def test_each_half_is_scored_at_the_temperature_of_the_other(scored):
    classifier, images, targets, ranks = scored
    found = calibrate(*scored, tau=1.0)
    sims = candidate_similarities(classifier, images)
    first, second = (found.fitted_confidences == confidences(sims, tau) for tau in found.fold_taus[::-1])
    assert (first ^ second).all() and (first.sum(), second.sum()) == (3000, 3001)
    assert found.fold_taus == (
        fit_tau(sims[first], targets.numpy()[first]),
        fit_tau(sims[second], targets.numpy()[second]),
    )
    other = calibrate(classifier, images, targets, ranks, tau=1.0, seed=1)
    assert other.fold_taus != found.fold_taus and other.fitted_tau == found.fitted_tau


def test_the_order_of_images_changes_no_score(scored):
    classifier, images, targets, ranks = scored
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    moved = calibrate(classifier, images[order], targets[order], ranks[order.numpy()], tau=0.02)
    found = calibrate(*scored, tau=0.02)
    assert moved.scores() == found.scores() and moved.details() == found.details()


def test_intervals_surround_the_error_and_follow_resampled_data(scored):
    found = calibrate(*scored, tau=TRUE_TAU / 5)
    samples = bootstrap(found.resample, 6001, resamples=200)
    for name, value in found.scores().items():
        low, high = percentile_interval(samples[name])
        assert low < value < high and samples[name].mean() == pytest.approx(value, abs=2e-3)
    # Far from calibration, every bin's sign is sure, and a resample's error is that of the resampled images.
    drawn = np.random.default_rng(0).integers(0, 6001, size=(200, 6001))
    for at in (0, 7):
        again = reliability_bins(found.confidences[drawn[at]], found.hits[drawn[at]])
        assert samples["ece"][at] == pytest.approx(expected_calibration_error(again), abs=2e-3)


def test_equal_prompts_compete_once():
    """Two classes of one candidate: the probability is the candidate's."""
    features = torch.eye(3)[:2]
    classifier = Classifier(features, torch.tensor([0, 1, 1]), torch.tensor([0, 1]))
    images, targets = features[[0, 1, 1, 0]], torch.tensor([0, 1, 2, 1])
    ranks, _ = classify(classifier, images, targets)
    found = calibrate(classifier, images, targets, ranks, tau=1.0)
    assert found.confidences == pytest.approx([np.e / (1 + np.e)] * 4)
    assert found.hits.tolist() == [True, True, True, False]
    assert calibrate(classifier, images[:1], targets[:1], ranks[:1], tau=1.0) is None
