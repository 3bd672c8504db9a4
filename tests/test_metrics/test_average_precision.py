"""Mean average precision against a transcription of CLIP_benchmark's definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bimodal_cl.metrics import average_precision, chance_average_precision, mean_average_precision


def by_definition(scores, targets):
    """Sort each class by score and average the precision at the right images; 0 if there are none."""
    found = []
    for column, right in zip(scores.T, targets.T, strict=True):
        ranked = right[np.argsort(-column)]
        precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
        found.append((precision * ranked).sum() / max(ranked.sum(), 1))
    return np.array(found)


def test_equals_the_definition():
    rng = np.random.default_rng(0)
    scores, targets = rng.normal(size=(200, 9)), rng.random((200, 9)) < np.linspace(0, 0.6, 9)
    targets = targets.astype(np.uint8)
    assert targets.sum(axis=0)[0] == 0  # a class without images
    np.testing.assert_allclose(average_precision(scores, targets), by_definition(scores, targets), rtol=1e-12)
    assert mean_average_precision(scores, targets) == pytest.approx(by_definition(scores, targets).mean(), abs=1e-12)
    order = rng.permutation(200)
    assert mean_average_precision(scores[order], targets[order]) == mean_average_precision(scores, targets)
    classes = rng.permutation(9)
    assert mean_average_precision(scores[:, classes], targets[:, classes]) == mean_average_precision(scores, targets)


def test_a_wrong_image_that_ties_stands_first():
    scores, targets = np.zeros((4, 1)), np.array([[1], [0], [1], [0]])
    for order in itertools.permutations(range(4)):
        found = average_precision(scores[list(order)], targets[list(order)])
        assert found.tolist() == pytest.approx([(1 / 3 + 2 / 4) / 2])


@pytest.mark.parametrize(("num_images", "num_right"), [(1, 1), (5, 1), (5, 2), (6, 3), (5, 5), (5, 0)])
def test_chance_is_the_mean_over_all_orders(num_images, num_right):
    right = np.arange(num_images) < num_right
    orders = list(itertools.permutations(range(num_images)))
    found = [average_precision(np.array(order, float)[:, None], right[:, None])[0] for order in orders]
    assert chance_average_precision(num_images, [num_right]) == pytest.approx(np.mean(found))


@pytest.mark.parametrize(
    ("targets", "message"),
    [([[1, 0]], "targets must have the shape of scores"), ([[2], [0]], "only 0 and 1")],
)
def test_refuses_other_targets(targets, message):
    with pytest.raises(ValueError, match=message):
        average_precision([[0.1], [0.2]], targets)
