"""Linear probes: sweep, refit, ranks, classes without training images, and a few shots over several draws."""

from __future__ import annotations

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from bimodal_cl.metrics import mean_per_class_recall, topk_accuracy
from bimodal_cl.metrics.bootstrap import SEED
from bimodal_cl.scoring.classifier import score_classification
from bimodal_cl.scoring.probes.draws import draw_shots, hold_out
from bimodal_cl.scoring.probes.few_shot import mean_scores, resample_draws, score_shots
from bimodal_cl.scoring.probes.linear_probe import LabelledPart, rank_classes, score_sets, train_probe
from bimodal_cl.scoring.probes.logistic import LogisticProblem
from bimodal_cl.scoring.probes.sweep import NUM_FITS
from tests.refusals import refused
from tests.test_scoring.probes.clusters import draw_part

COUNTS = [12, 12, 12, 12, 12]


def scores_of(probe, test):
    ranks, predictions = rank_classes(probe.classifier.logits(test.features), probe.classes, test.targets)
    return score_classification(ranks, predictions, test.targets.numpy(), len(probe.classes))


def test_classes_far_apart_are_learned_without_a_mistake():
    train, val, test = (draw_part(COUNTS, spread=0.05, seed=seed) for seed in range(3))
    probe = train_probe(train, val)
    assert scores_of(probe, test) == {"acc1": 1.0, "acc5": 1.0, "mean_per_class_recall": 1.0}


def test_the_sweep_finds_the_best_of_its_grid_and_the_probe_learns_from_both_parts():
    train, val = draw_part(COUNTS, seed=0), draw_part(COUNTS, seed=1)
    fits = []
    probe = train_probe(train, val, on_fit=lambda: fits.append(1))
    tried = probe.sweep.tried
    assert len(fits) == len(tried) + 1 <= NUM_FITS + 1
    best = max(tried, key=lambda each: (each.score, -each.loss))
    assert probe.classifier.l2 == best.l2
    for each in tried:
        assert math.log10(each.l2) * 8 == pytest.approx(round(math.log10(each.l2) * 8), abs=1e-9)
        logits = LogisticProblem(train.features, train.targets, 5).fit(each.l2).logits(val.features)
        if each.l2 > 1e-2:  # weaker ones do not reach the optimum within the tolerance
            assert each.score == pytest.approx(topk_accuracy(logits, val.targets, [1])["acc1"], abs=0.02)
    both = train.join(val)
    whole = LogisticProblem(both.features, both.targets, 5).fit(best.l2)
    torch.testing.assert_close(probe.classifier.weight, whole.weight, atol=1e-3, rtol=1e-3)
    again = train_probe(train, val)
    assert torch.equal(again.classifier.weight, probe.classifier.weight)


def test_unequal_classes_are_scored_by_class_too():
    train, val, test = draw_part([60, 3, 3]), draw_part([20, 2, 2], seed=1), draw_part([90, 5, 5], seed=2)
    probe = train_probe(train, val)
    logits = probe.classifier.logits(test.features)
    scores = scores_of(probe, test)
    assert set(scores) == {"acc1", "mean_per_class_recall"}  # of fewer than five classes
    assert scores["acc1"] == topk_accuracy(logits, test.targets, [1])["acc1"]
    assert scores["mean_per_class_recall"] == mean_per_class_recall(logits, test.targets)
    assert scores["mean_per_class_recall"] < scores["acc1"]


def test_a_class_without_training_images_is_never_right():
    train, val, test = draw_part([12, 0, 12, 12]), draw_part([4, 4, 4, 4], seed=1), draw_part([5, 5, 5, 5], seed=2)
    few = train_probe(train, val, refit=False)
    assert few.classes.tolist() == [0, 2, 3]
    ranks, predictions = rank_classes(few.classifier.logits(test.features), few.classes, test.targets)
    assert ranks[5:10].tolist() == [4] * 5
    assert 1 not in predictions
    assert train_probe(train, val).classes.tolist() == [0, 1, 2, 3]  # the validation images show it


def test_ranks_and_predictions():
    scores = torch.tensor([[3.0, 2.0, 1.0], [1.0, 1.0, 0.0], [0.0, 1.0, 2.0], [5.0, 6.0, 7.0]])
    ranks, predictions = rank_classes(scores, torch.tensor([1, 4, 6]), torch.tensor([1, 4, 1, 5]))
    assert ranks.tolist() == [1, 2, 3, 4]
    assert predictions.tolist() == [1, 1, 6, 6]  # a tie goes against the right class


def test_classes_that_no_training_image_shows_have_constant_scores():
    train, val = draw_part(COUNTS), draw_part(COUNTS, seed=1)
    train, val = (LabelledPart(each.features, torch.eye(6, dtype=torch.int64)[each.targets]) for each in (train, val))
    scores = score_sets(train_probe(train, val), val)
    assert scores.shape == (60, 6) and scores[:, 5].unique().tolist() == [0.0]
    assert scores[:, :5].argmax(dim=1).eq(val.targets.argmax(dim=1)).float().mean() > 0.8


def test_the_held_out_part_has_its_share_of_every_class():
    targets = np.array([0] * 20 + [1] * 5 + [2] * 2 + [3])
    train, val = hold_out(targets, 0.2, seed=3)
    assert sorted([*train, *val]) == list(range(28))
    assert np.bincount(targets[val], minlength=4).tolist() == [4, 1, 1, 0]
    np.testing.assert_array_equal(hold_out(targets, 0.2, seed=3)[1], val)
    assert hold_out(targets, 0.2, seed=4)[1].tolist() != val.tolist()
    with refused("no class has two training images"):
        hold_out(np.arange(4), 0.2, seed=0)


def test_shots_are_drawn_by_class_and_nested():
    targets = np.repeat([0, 2, 5], [9, 6, 30])
    few, more = (draw_shots(targets, shots, seed=1, draw=2) for shots in (2, 6))
    assert np.unique(targets[more], return_counts=True)[1].tolist() == [6, 6, 6]
    assert set(few) < set(more)
    assert draw_shots(targets, 2, seed=1, draw=3).tolist() != few.tolist()
    assert np.unique(targets[draw_shots(targets, 8, 1, 2, at_most=True)], return_counts=True)[1].tolist() == [8, 6, 8]
    with pytest.raises(ValueError, match="a class has 6 images, fewer than 7"):
        draw_shots(targets, 7, seed=1, draw=2)


def test_more_shots_are_better_and_the_interval_covers_the_draws():
    train, val, test = draw_part([20] * 5), draw_part(COUNTS, seed=1), draw_part([20] * 5, seed=2)
    one, many = (score_shots(train, val, test, shots, num_draws=2, seed=0) for shots in (1, 12))
    assert mean_scores(one)["acc1"] < mean_scores(many)["acc1"]
    assert mean_scores(one)["acc1"] == pytest.approx(np.mean([each.scores["acc1"] for each in one]))
    low, high = resample_draws(one).intervals()["acc1"]
    assert low < mean_scores(one)["acc1"] < high
    again = score_shots(train, val, test, 1, num_draws=2, seed=0)
    assert [each.scores for each in again] == [each.scores for each in one]


def test_the_interval_of_draws_alone_has_the_width_of_students():
    train, val, test = draw_part([20] * 5), draw_part(COUNTS, seed=1), draw_part([20] * 5, seed=2)
    first = score_shots(train, val, test, 1, num_draws=1, seed=0)
    draws = first + [deepcopy(first[0]) for _ in range(4)]
    values = np.array([0.42, 0.47, 0.5, 0.53, 0.58])
    for draw, value in zip(draws, values, strict=True):
        draw.resampled.samples["acc1"][:] = value  # as if there were no chance in the test images
    low, high = resample_draws(draws, seed=SEED).intervals()["acc1"]
    half = student.ppf(0.975, 4) * values.std(ddof=1) / math.sqrt(5)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    single = resample_draws(draws[:1])
    assert single.intervals()["acc1"] == [0.42, 0.42]
