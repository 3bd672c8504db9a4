"""Top-k accuracy and recall averaged over classes against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bimodal_cl.metrics import class_ranks, mean_per_class_recall, topk_accuracy


@st.composite
def tied_logits(draw):
    num_images, num_classes = draw(st.integers(1, 12)), draw(st.integers(1, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.integers(-2, 3, (num_images, num_classes)).astype(float), rng.integers(0, num_classes, num_images)


@settings(max_examples=150, deadline=None)
@given(data=tied_logits(), k=st.integers(1, 8))
def test_topk_accuracy_equals_the_definition(data, k):
    logits, targets = data
    hits = []
    for row, target in zip(logits, targets, strict=True):
        order = sorted(range(len(row)), key=lambda index: (-row[index], index == target))
        hits.append(target in order[:k])
    assert topk_accuracy(logits, targets, ks=(k,))[f"acc{k}"] == pytest.approx(np.mean(hits), abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(data=tied_logits())
def test_mean_per_class_recall_equals_the_definition(data):
    logits, targets = data
    recalls, recalls_of_predictions = [], []
    predictions = logits.argmax(axis=1)
    for target in sorted(set(targets.tolist())):
        rows = targets == target
        sole_best = [row[target] > np.delete(row, target).max(initial=-np.inf) for row in logits[rows]]
        recalls.append(np.mean(sole_best))
        recalls_of_predictions.append(np.mean(predictions[rows] == target))
    assert mean_per_class_recall(logits, targets) == pytest.approx(np.mean(recalls), abs=1e-12)
    assert mean_per_class_recall(predictions, targets) == pytest.approx(np.mean(recalls_of_predictions), abs=1e-12)


def test_hand_computed_example():
    logits = torch.tensor([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    targets = torch.tensor([0, 0, 1, 2])
    assert class_ranks(logits, targets).tolist() == [1, 3, 2, 1]
    assert topk_accuracy(logits, targets, ks=(1, 2, 5)) == {"acc1": 0.5, "acc2": 0.75, "acc5": 1.0}
    assert mean_per_class_recall(logits, targets) == pytest.approx((0.5 + 0.0 + 1.0) / 3)


def test_balanced_classes_make_mean_per_class_recall_the_accuracy():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(60, 6)), np.repeat(np.arange(6), 10)
    assert mean_per_class_recall(logits, targets) == pytest.approx(topk_accuracy(logits, targets)["acc1"])


def test_classes_without_images_are_left_out_of_the_mean():
    assert mean_per_class_recall([0, 0, 5], [0, 0, 5]) == 1.0
    assert mean_per_class_recall([0, 5, 5], [0, 0, 5]) == 0.75


def test_constant_logits_score_nothing():
    logits, targets = np.zeros((10, 4), dtype=np.float32), np.arange(10) % 4
    assert topk_accuracy(logits, targets, ks=(1, 3)) == {"acc1": 0.0, "acc3": 0.0}
    assert mean_per_class_recall(logits, targets) == 0.0


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (np.zeros((2, 3)), [0], "targets has 1 entries for 2 images"),
        (np.zeros((2, 3)), [0, 3], r"targets\[1\] = 3 is outside the classes \(0 to 2\)"),
        (np.zeros((2, 3)), [0.5, 1], "targets must be integers, got dtype float64"),
        (np.array([[np.nan, 0]]), [0], "logits has 1 of 1 rows with NaN"),
    ],
)
def test_refuses_with_values(logits, targets, message):
    for score in (topk_accuracy, mean_per_class_recall):
        with pytest.raises(ValueError, match=message):
            score(logits, targets)


def test_refuses_predictions_that_are_not_classes():
    with pytest.raises(ValueError, match="predictions must be integers, got dtype float64"):
        mean_per_class_recall([0.0, 1.0], [0, 1])
    with pytest.raises(ValueError, match="predictions must be integers, got dtype bool"):
        mean_per_class_recall([True, False], [0, 1])
    with pytest.raises(ValueError, match="there is no image to score"):
        mean_per_class_recall(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
