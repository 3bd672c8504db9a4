"""Votes of the nearest neighbours, against a transcription of the formula, and ties."""

from __future__ import annotations

import math

import pytest
import torch

from bimodal_cl.scoring.probes import neighbours
from bimodal_cl.scoring.probes.neighbours import neighbour_votes
from tests.test_scoring.probes.clusters import draw_part


def votes_by_hand(train, image, num_classes, k, tau):
    """Return the shares of the votes for one image, without ties."""
    sims = sorted(((float(image.double() @ row.double()), int(c)) for row, c in zip(*train, strict=True)), reverse=True)
    votes = [0.0] * num_classes
    for cosine, target in sims[:k]:
        votes[target] += math.exp(cosine / tau)
    return [vote / sum(votes) for vote in votes]


@pytest.mark.parametrize(("k", "tau"), [(1, 0.07), (7, 0.07), (20, 1.0)])
def test_votes_equal_the_formula(k, tau, monkeypatch):
    monkeypatch.setattr(neighbours, "_BLOCK_ELEMENTS", 300)  # several blocks
    train, test = draw_part([12, 20, 8]), draw_part([5, 5, 5], seed=1)
    votes = neighbour_votes(train.features, train.targets, test.features, 4, k, tau)
    for row, image in zip(votes, test.features, strict=True):
        expected = votes_by_hand((train.features, train.targets), image, 4, k, tau)
        torch.testing.assert_close(row, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)
    sets = torch.eye(4, dtype=torch.int64)[train.targets]
    torch.testing.assert_close(neighbour_votes(train.features, sets, test.features, 4, k, tau), votes)


def test_images_that_tie_for_the_last_places_share_them_in_any_order():
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    train = torch.stack([east, north, north, north])  # two places: one for the east, one for three images of the north
    targets = torch.tensor([0, 1, 1, 2])
    votes = neighbour_votes(train, targets, east[None], 3, k=2, tau=0.5)
    weight = math.exp(-2)
    expected = torch.tensor([[1, weight * 2 / 3, weight / 3]], dtype=torch.float64) / (1 + weight)
    torch.testing.assert_close(votes, expected, atol=1e-9, rtol=0)
    for order in ([3, 2, 1, 0], [1, 3, 0, 2]):
        assert torch.equal(neighbour_votes(train[order], targets[order], east[None], 3, k=2, tau=0.5), votes)


def test_the_order_of_training_images_and_blocks_do_not_matter(monkeypatch):
    train, test = draw_part([30, 30]), draw_part([9, 9], seed=1)
    votes = neighbour_votes(train.features, train.targets, test.features, 2)
    order = torch.randperm(60, generator=torch.manual_seed(0))
    monkeypatch.setattr(neighbours, "_BLOCK_ELEMENTS", 120)
    assert torch.equal(neighbour_votes(train.features[order], train.targets[order], test.features, 2), votes)


def test_more_neighbours_than_images_and_no_temperature_are_refused():
    train = draw_part([3, 3])
    with pytest.raises(ValueError, match="k=7 must be between 1 and the 6 training images"):
        neighbour_votes(train.features, train.targets, train.features, 2, k=7)
    with pytest.raises(ValueError, match="tau=0 must be above 0"):
        neighbour_votes(train.features, train.targets, train.features, 2, k=2, tau=0)
