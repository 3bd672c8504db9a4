"""Classes with equal prompts are one candidate, and a wrong candidate that ties ranks first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bimodal_cl.scoring.classifier import build_classifier, class_similarities, classify, score_classification

ANGLES = {"east": 0.0, "north": 90.0, "west": 180.0, "south": 270.0, "up": 45.0}


class Words(nn.Module):
    """Encode texts as directions in a plane; ``tokenize`` ignores case."""

    def __init__(self, angles=None):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.angles = angles or ANGLES

    def tokenize(self, texts):
        return torch.tensor([[list(self.angles).index(text.lower())] for text in texts])

    def encode_text(self, tokens):
        return directions([list(self.angles.values())[number] for number in tokens[:, 0].tolist()])


def directions(angles):
    radians = torch.tensor(angles).float().deg2rad()
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def scores_of(names, targets, angles, model=None):
    classifier = build_classifier(model or Words(), names, ["{c}"])
    wanted = torch.tensor(targets)
    ranks, predictions = classify(classifier, directions(angles), wanted)
    return (
        score_classification(ranks, predictions, wanted.numpy(), classifier.num_candidates),
        ranks.tolist(),
        predictions.tolist(),
    )


def test_equal_prompts_are_one_candidate():
    # Images: two of "east" (of either class), one of "north", one of "west" that looks northern.
    scores, ranks, predictions = scores_of(["east", "North", "East", "west"], [0, 2, 1, 3], [5, 5, 80, 100])
    assert ranks == [1, 1, 1, 2]
    assert predictions == [0, 2, 1, 1]
    assert scores == {"acc1": 0.75, "mean_per_class_recall": 0.75}


def test_ranks_count_candidates_and_top_5_needs_five_of_them():
    names = ["east", "east", "north", "west", "south"]
    scores, ranks, _ = scores_of(names, [4, 1], [10, 170])
    assert ranks == [3, 4]  # east, north, south | west, north, south, east
    assert set(scores) == {"acc1", "mean_per_class_recall"}
    assert "acc5" in scores_of([*names, "up"], [4], [10])[0]


def test_a_model_that_says_the_same_of_all_classes_scores_nothing():
    constant = Words(dict.fromkeys(ANGLES, 30.0))
    scores, ranks, predictions = scores_of(["east", "north", "west"], [0, 1, 2], [30, 30, 30], constant)
    assert ranks == [3, 3, 3] and scores["acc1"] == scores["mean_per_class_recall"] == 0.0
    assert predictions == [1, 0, 0]  # the first by name of the other classes


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_classes_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    names, templates = ["east", "north", "up", "East", "west", "south"], ["{c}"]
    targets, angles = rng.integers(0, 6, 40), rng.uniform(0, 360, 40)
    order = rng.permutation(6)
    first = scores_of(names, targets.tolist(), angles)
    moved = scores_of([names[old] for old in order], np.argsort(order)[targets].tolist(), angles)
    assert first[:2] == moved[:2]
    said = [[names[index].lower() for index in first[2]], [names[order[index]].lower() for index in moved[2]]]
    assert said[0] == said[1]
    classifier = build_classifier(Words(), names, templates)
    assert torch.equal(
        class_similarities(classifier, directions(angles))[:, 0],
        class_similarities(classifier, directions(angles))[:, 3],
    )
