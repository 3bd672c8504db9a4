"""The word that an image's captions agree on."""

import pytest

from data_prep.thinning.caption_words import CaptionConcepts, find_words


def name(captions, others=()):
    return CaptionConcepts([*captions, *others]).name(captions)


def test_words_that_name_no_thing_are_left_out():
    assert find_words("A small brown dog is running, near 2 buildings on the Building-site !") == [
        "dog",
        "buildings",
        "building",
        "site",
    ]


def test_most_captions_decide_not_most_words():
    assert name(["dog dog dog dog", "a cat", "the cat"]) == "cat"


def test_of_equal_words_the_more_frequent_one_of_the_data_set():
    captions = ["a dog with a ball", "dog and ball"]
    assert name(captions) == "ball"  # the first in the alphabet
    assert name(captions, ["dogs"]) == "dog"
    assert name(captions, ["dogs", "balls", "a ball"]) == "ball"


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("dogs", "dog"),
        ("beaches", "beach"),
        ("babies", "baby"),
        ("horses", "horse"),
        ("people", "person"),
        ("women", "woman"),
    ],
)
def test_a_plural_counts_as_its_singular(plural, singular):
    assert name([plural, f"the {singular}", "a tree"]) == singular
    assert name(["the tree", singular, f"tall {plural}"], ["trees"] * 9) == singular


@pytest.mark.parametrize("word", ["grass", "tennis", "bus", "dress", "glasses"])
def test_a_word_in_s_without_a_singular_stays(word):
    assert name([word]) == word


def test_captions_without_a_thing_have_no_concept():
    assert name(["Running !", "he stands", "", "a white one"]) == ""
