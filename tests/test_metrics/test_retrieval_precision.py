"""mAP@R, mean rank, RSUM and their levels of chance, against their definitions in plain Python."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bimodal_cl.metrics import chance_precision, mean_rank, rank_queries, recall_sum, retrieval_recall
from tests.test_metrics.test_retrieval_recall import tied_features, tiles


def precisions_by_definition(images, texts, owner_of_text):
    """Return each image's average precision at R; wrong captions that tie with a right one are sorted before it."""
    found = []
    for image in sorted(set(owner_of_text)):
        sims = [float(np.dot(images[image], text)) for text in texts]
        order = sorted(range(len(texts)), key=lambda text: (-sims[text], owner_of_text[text] == image))
        right = [owner_of_text[text] == image for text in order]
        total = sum(right)
        found.append(sum(sum(right[: i + 1]) / (i + 1) for i in range(total) if right[i]) / total)
    return found


@settings(max_examples=150, deadline=None)
@given(data=tied_features(), tile=st.sampled_from([(1, 1), (2, 5), (1000, 3), (3, 1000), (1000, 1000)]))
def test_average_precision_at_r_equals_the_definition_in_every_tile_size(data, tile):
    images, texts, owners = data
    with tiles(*tile):
        ranked = rank_queries(images, texts, owners)
    assert ranked.text_precisions == pytest.approx(precisions_by_definition(images, texts, owners.tolist()), abs=1e-12)
    whole = rank_queries(images, texts, owners).text_precisions
    assert ranked.text_precisions.tobytes() == whole.tobytes()


def test_hand_computed_average_precision_at_r():
    # The nearest captions of image 0 (R = 3) are right, wrong, right; its third comes last.
    texts = np.array([[1.0, 0.0], [0.8, 0.0], [0.1, 0.0], [0.9, 0.0]])
    images = np.array([[1.0, 0.0], [0.0, 1.0]])
    ranked = rank_queries(images, texts, [0, 0, 0, 1])
    assert ranked.text_precisions[0] == pytest.approx((1 + 2 / 3) / 3)
    assert ranked.text_precisions[1] == 0.0  # its only caption ties with all others


def test_one_right_answer_makes_average_precision_recall_at_1():
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(50, 4)), rng.normal(size=(50, 4))
    ranked = rank_queries(images, texts)
    assert ranked.text_precisions.mean() == retrieval_recall(images, texts)["text_retrieval_recall@1"]
    assert set(ranked.text_precisions) == {0.0, 1.0}


def test_constant_features_have_no_precision():
    row = torch.nn.functional.normalize(torch.randn(1, 64, generator=torch.Generator().manual_seed(0)), dim=-1)
    ranked = rank_queries(row.expand(40, 64), row.expand(200, 64), np.arange(200) // 5)
    assert ranked.text_precisions.max() == 0.0


def test_mean_rank_and_recall_sum():
    assert mean_rank([3, 1, 2, 10]) == 4.0
    with pytest.raises(ValueError, match="ranks count from 1"):
        mean_rank([0, 1])
    # Recalls at 1, 5, 10 are 1/2, 1, 1 for captions and 0, 0, 1 for images.
    assert recall_sum([1, 5], [6, 10]) == 3.5
    assert recall_sum([1], [1]) == 6.0


def test_chance_of_average_precision_at_r_is_the_mean_over_all_orders():
    rights = itertools.permutations([True, True, True, False, False, False])
    values = [sum(sum(r[: i + 1]) / (i + 1) for i in range(3) if r[i]) / 3 for r in rights]
    assert chance_precision(6, [3]) == pytest.approx(np.mean(values))
    assert chance_precision(6, [3, 1, 1]) == pytest.approx((np.mean(values) + 2 / 6) / 3)
    assert chance_precision(1, [1]) == 1.0
    with pytest.raises(ValueError, match="from 1 to num_candidates=3"):
        chance_precision(3, [4])
