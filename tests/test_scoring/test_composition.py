"""Winoground's three scores by their definitions, ties, levels of chance, and features of different widths."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from bimodal_cl.scoring.composition import Choices, chance_of_composition, choose, resample_composition
from bimodal_cl.scoring.composition import score_composition as score
from bimodal_cl.scoring.retrieval import PairFeatures, rank_pairs
from tests.refusals import refused


def test_the_three_scores_of_winoground_by_their_definitions():
    rng = np.random.default_rng(0)
    sims = rng.integers(0, 3, (300, 2, 2)).astype(float)  # many ties
    text = [(s[0, 0] > s[0, 1]) and (s[1, 1] > s[1, 0]) for s in sims]
    image = [(s[0, 0] > s[1, 0]) and (s[1, 1] > s[0, 1]) for s in sims]
    both = [first and second for first, second in zip(text, image, strict=True)]
    found = score(Choices(sims, ["all"] * 300))
    assert found == {"text_acc": np.mean(text), "image_acc": np.mean(image), "acc": np.mean(both)}


def test_subsets_count_equally_and_every_score_has_an_interval():
    sims = np.array([[[1.0, 0.0]], [[1.0, 1.0]], [[1.0, 0.0]], [[0.0, 1.0]], [[2.0, 1.0]]])
    choices = Choices(sims, ["a", "b", "b", "b", "b"])
    assert score(choices) == {"acc": (1 + 0.5) / 2, "acc_a": 1.0, "acc_b": 0.5}
    resampled = resample_composition(choices, ["x"] * 10)
    assert list(resampled.samples) == ["acc", "acc_a", "acc_b"]
    assert all(np.isfinite(samples).all() for samples in resampled.samples.values())
    assert resampled.data != resample_composition(choices, ["y"] * 10).data


def test_chance_is_the_mean_over_all_orders():
    orders = np.array(list(permutations(range(4))), dtype=float).reshape(-1, 2, 2)
    choices = Choices(orders, ["all"] * 24)
    assert chance_of_composition(choices) == pytest.approx(score(choices))
    assert chance_of_composition(Choices(np.array([[[1.0, 0.0]]]), ["all"])) == {"acc": 0.5}


def test_rows_of_features_are_compared_example_by_example():
    images, texts = torch.eye(3), torch.eye(3)[[0, 1, 2, 0]]
    choices = choose(images, texts, np.array([[0, 1], [2, 0]]), np.array([[0, 1], [2, 3]]), ["all"] * 2)
    assert choices.sims.tolist() == [[[1, 0], [0, 1]], [[1, 0], [0, 1]]]


def test_towers_of_different_widths_are_refused():
    with refused("image features have 4 numbers and its text features 6"):
        choose(torch.ones(1, 4), torch.ones(2, 6), np.array([[0]]), np.array([[0, 1]]), ["all"])
    ids = torch.arange(2)
    with refused("image features have 4 numbers and its text features 6"):
        rank_pairs(PairFeatures(torch.ones(2, 4), torch.ones(2, 6), ids, ids, ids, ["a", "b"]))
