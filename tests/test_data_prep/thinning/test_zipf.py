"""How many images of a concept stay, and which."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bimodal_cl.data.shards.concepts import ImageConcepts
from data_prep.thinning.zipf import choose_images, kept_counts

COUNTS = np.array([1000, 900, 300, 260, 30, 1])


def test_counts_follow_the_law_where_there_are_enough():
    assert kept_counts(COUNTS, 1).tolist() == [1000, 500, 300, 250, 30, 1]
    assert kept_counts(COUNTS, 2).tolist() == [1000, 250, 111, 62, 30, 1]
    assert kept_counts(COUNTS, 0).tolist() == COUNTS.tolist()


def test_head_and_least_number():
    assert kept_counts(COUNTS, 2, head=100).tolist() == [100, 25, 11, 6, 4, 1]
    assert kept_counts(COUNTS, 2, head=10).tolist() == [10, 2, 1, 1, 1, 1]
    assert kept_counts(COUNTS, 2, min_images=0, head=10).tolist() == [10, 2, 1, 1, 0, 0]
    assert kept_counts(COUNTS, 2, min_images=100).tolist() == [1000, 250, 111, 100, 30, 1]


@given(
    st.lists(st.sampled_from(["", "dog", "cat", "man", "sea"]), min_size=1, max_size=60),
    st.integers(0, 9),
    st.floats(0, 3),
)
def test_exactly_so_many_images_of_each_concept_stay(names, seed, exponent):
    concepts = ImageConcepts.from_names(names)
    kept = kept_counts(concepts.counts, exponent)
    stays = choose_images(concepts, kept, seed)
    chosen = [name for name, stay in zip(names, stays, strict=True) if stay]
    assert "" not in chosen
    assert [chosen.count(name) for name in concepts.names] == kept.tolist()
    fewer = choose_images(concepts, kept_counts(concepts.counts, exponent + 0.7), seed)
    assert not (fewer & ~stays).any()


def test_another_seed_keeps_other_images():
    concepts = ImageConcepts.from_names(["dog"] * 40)
    first, again, other = (choose_images(concepts, np.array([20]), seed) for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()
