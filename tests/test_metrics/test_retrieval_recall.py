"""Recall at K against a transcription of its definition in plain Python, on data full of ties and repeats."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bimodal_cl.metrics import chance_recall, median_rank, ranking, retrieval_ranks, retrieval_recall


def recall_by_definition(images, texts, owner_of_text, k):
    """Count hits one query at a time; a wrong candidate that ties with the right one is sorted before it."""
    sims = [[float(np.dot(image, text)) for text in texts] for image in images]
    caption_hits = []
    for text, owner in enumerate(owner_of_text):
        order = sorted(range(len(images)), key=lambda image: (-sims[image][text], image == owner))
        caption_hits.append(owner in order[:k])
    image_hits = []
    for image in sorted(set(owner_of_text)):
        order = sorted(range(len(texts)), key=lambda text: (-sims[image][text], owner_of_text[text] == image))
        image_hits.append(any(owner_of_text[text] == image for text in order[:k]))
    return float(np.mean(caption_hits)), float(np.mean(image_hits))


@st.composite
def tied_features(draw):
    """Integer features (exact products, many ties), several captions per image, some images without captions."""
    num_images, num_texts, dim = draw(st.integers(1, 7)), draw(st.integers(1, 12)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images = rng.integers(-2, 3, (num_images, dim)).astype(np.float64)
    texts = rng.integers(-2, 3, (num_texts, dim)).astype(np.float64)
    return images, texts, rng.integers(0, num_images, num_texts)


@contextmanager
def tiles(images, texts):
    """Rank in tiles of this size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_IMAGES_AT_ONCE", images)
        patch.setattr(ranking, "_TEXTS_AT_ONCE", texts)
        yield


@settings(max_examples=150, deadline=None)
@given(
    data=tied_features(),
    k=st.integers(1, 13),
    tile=st.sampled_from([(1, 1), (2, 5), (1000, 3), (3, 1000), (1000, 1000)]),
)
def test_equals_the_definition_in_every_tile_size(data, k, tile):
    images, texts, owners = data
    with tiles(*tile):
        scores = retrieval_recall(images, texts, owners, ks=(k,))
    expected = recall_by_definition(images, texts, owners.tolist(), k)
    assert scores[f"image_retrieval_recall@{k}"] == pytest.approx(expected[0], abs=1e-12)
    assert scores[f"text_retrieval_recall@{k}"] == pytest.approx(expected[1], abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(data=tied_features(), seed=st.integers(0, 1000))
def test_order_of_the_data_does_not_matter(data, seed):
    images, texts, owners = data
    rng = np.random.default_rng(seed)
    image_order, text_order = rng.permutation(len(images)), rng.permutation(len(texts))
    moved = retrieval_recall(images[image_order], texts[text_order], np.argsort(image_order)[owners[text_order]])
    assert moved == pytest.approx(retrieval_recall(images, texts, owners))


def test_hand_computed_example_with_several_captions():
    # Image 0 points east, image 1 north. Captions: east, north-east leaning east, north leaning west | north.
    images = np.array([[1.0, 0.0], [0.0, 1.0]])
    texts = np.array([[1.0, 0.0], [0.8, 0.6], [-0.1, 0.99], [0.0, 1.0]])
    image_ranks, text_ranks = retrieval_ranks(images, texts, [0, 0, 0, 1])
    assert image_ranks.tolist() == [1, 1, 2, 1]
    assert text_ranks.tolist() == [1, 1]
    scores = retrieval_recall(images, texts, [0, 0, 0, 1], ks=(1, 2))
    assert scores == {
        "image_retrieval_recall@1": 0.75,
        "text_retrieval_recall@1": 1.0,
        "image_retrieval_recall@2": 1.0,
        "text_retrieval_recall@2": 1.0,
    }


def test_another_caption_of_the_same_image_does_not_count_as_a_miss():
    images = np.eye(2)
    texts = np.array([[0.6, 0.8], [1.0, 0.0], [0.0, 1.0]])  # the first caption of image 0 resembles image 1
    assert retrieval_ranks(images, texts, [0, 0, 1])[1].tolist() == [1, 1]


def test_constant_features_score_nothing_instead_of_everything():
    row = torch.nn.functional.normalize(torch.randn(1, 64, generator=torch.Generator().manual_seed(0)), dim=-1)
    scores = retrieval_recall(row.expand(203, 64), row.expand(1015, 64), np.arange(1015) // 5)
    assert set(scores.values()) == {0.0}


def test_one_caption_an_image_needs_no_owners():
    features = torch.nn.functional.normalize(torch.randn(40, 16, generator=torch.Generator().manual_seed(1)), dim=-1)
    assert set(retrieval_recall(features, features).values()) == {1.0}
    shifted = retrieval_recall(features, features.roll(1, dims=0), ks=(1,))
    assert set(shifted.values()) == {0.0}
    assert retrieval_recall(features, features.roll(1, dims=0), np.roll(np.arange(40), 1)) == retrieval_recall(
        features, features
    )


def test_swapping_the_modalities_swaps_the_directions():
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(30, 8)), rng.normal(size=(30, 8))
    straight, swapped = retrieval_recall(first, second), retrieval_recall(second, first)
    for k in (1, 5, 10):
        assert straight[f"image_retrieval_recall@{k}"] == swapped[f"text_retrieval_recall@{k}"]
        assert straight[f"text_retrieval_recall@{k}"] == swapped[f"image_retrieval_recall@{k}"]


@pytest.mark.parametrize("kind", ["numpy32", "torch32", "half", "bfloat16", "list", "grad"])
def test_takes_any_kind_of_array(kind):
    rng = np.random.default_rng(0)
    images, texts = rng.integers(-3, 4, (5, 4)).astype(np.float32), rng.integers(-3, 4, (7, 4)).astype(np.float32)
    owners = np.array([0, 1, 2, 3, 4, 0, 1])
    convert = {
        "numpy32": lambda array: array,
        "torch32": torch.from_numpy,
        "half": lambda array: torch.from_numpy(array).half(),
        "bfloat16": lambda array: torch.from_numpy(array).bfloat16(),
        "list": lambda array: array.tolist(),
        "grad": lambda array: torch.from_numpy(array).requires_grad_(),
    }[kind]
    scores = retrieval_recall(convert(images), convert(texts), owners.astype(np.int32))
    assert scores == retrieval_recall(images.astype(np.float64), texts.astype(np.float64), owners)
    assert all(type(value) is float for value in scores.values())


def test_images_without_captions_are_candidates_only():
    images = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.9]])  # the third has no caption
    image_ranks, text_ranks = retrieval_ranks(images, np.array([[1.0, 0.0], [0.6, 0.8]]), [0, 1])
    assert image_ranks.tolist() == [1, 2]
    assert text_ranks.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((2, 3)), np.ones((2, 4))), r"image_features \(2, 3\) and text_features \(2, 4\)"),
        ((np.ones((2, 3)), np.ones((3, 3))), "2 images and 3 texts do not pair up"),
        ((np.ones((2, 3)), np.ones((3, 3)), [0, 1]), "image_of_text has 2 entries for 3 texts"),
        ((np.ones((2, 3)), np.ones((3, 3)), [0, 1, 2]), r"image_of_text\[2\] = 2 is outside the images \(0 to 1\)"),
        ((np.ones((2, 3)), np.ones((3, 3)), [0, -1, 1]), r"image_of_text\[1\] = -1 is outside"),
        ((np.ones((2, 3)), np.ones((2, 3)), [0.0, 1.0]), "image_of_text must be integers, got dtype float64"),
        ((np.ones(3), np.ones((2, 3))), r"image_features must have two dimensions.*\(3,\)"),
        ((np.ones((0, 3)), np.ones((0, 3))), r"both above 0, got shape \(0, 3\)"),
        ((np.ones((2, 3)), np.array([[1, 2, 3], [1, np.nan, 3]])), "text_features has 1 of 2 rows with NaN.* is 1"),
        ((np.full((2, 3), np.inf), np.ones((2, 3))), "image_features has 2 of 2 rows with NaN or infinity"),
        ((np.array([["a"]]), np.ones((1, 1))), "image_features must hold numbers"),
    ],
)
def test_refuses_with_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        retrieval_recall(*arguments)


@pytest.mark.parametrize("k", [0, -1, True])
def test_refuses_a_bad_cutoff(k):
    with pytest.raises(ValueError, match="cut-off K must be an integer of at least 1"):
        retrieval_recall(np.eye(2), np.eye(2), ks=(k,))


def test_median_rank():
    assert median_rank([3, 1, 2]) == 2.0
    assert median_rank(torch.tensor([1, 2, 10, 4])) == 3.0
    with pytest.raises(ValueError, match="ranks count from 1"):
        median_rank([0, 1])
    with pytest.raises(ValueError, match="at least one rank"):
        median_rank(np.zeros(0, dtype=np.int64))


def test_chance_is_what_random_orders_reach():
    assert chance_recall(1000, [1], 10) == pytest.approx(0.01)
    assert chance_recall(4, [4, 1], 1) == pytest.approx((1 + 0.25) / 2)
    assert chance_recall(3, [1], 50) == 1.0
    rng = np.random.default_rng(0)
    hits = [np.isin(rng.permutation(20)[:5], [0, 1, 2]).any() for _ in range(20000)]
    assert chance_recall(20, [3], 5) == pytest.approx(np.mean(hits), abs=0.015)
    with pytest.raises(ValueError, match="from 1 to num_candidates=3"):
        chance_recall(3, [4], 1)
