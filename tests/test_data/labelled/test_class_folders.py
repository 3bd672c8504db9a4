"""Class folders as public data sets name and nest them."""

from __future__ import annotations

import pytest

from bimodal_cl.data import open_labelled
from bimodal_cl.data.labelled.class_folders import find_class_folders, names_from_folders
from tests.test_data.tiny_shards import encode_image


def write_images(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(encode_image(1))
    return root


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["001.Black_footed_Albatross", "002.Laysan_Albatross"], ["Black footed Albatross", "Laysan Albatross"]),
        (["n02085620-Chihuahua", "n02085782-Japanese_spaniel"], ["Chihuahua", "Japanese spaniel"]),
        (["1_red fox", "10_wolf"], ["red fox", "wolf"]),
        (["737-200", "737-300", "747-100"], ["737-200", "737-300", "747-100"]),  # aircraft: no name behind
        (["7up", "cola"], ["7up", "cola"]),
        (["3_ring binder", "cup"], ["3 ring binder", "cup"]),  # not all are numbered
        (["2_door", "2_window"], ["2 door", "2 window"]),  # the same number twice: part of the names
        (["a/abbey", "c/church/indoor"], ["abbey", "church indoor"]),
        (["cafe\u0301", "bar"], ["caf\u00e9", "bar"]),  # letters of two code points, as macOS names folders
    ],
)
def test_names(folders, names):
    assert names_from_folders(folders)[0] == names


def test_what_is_left_out_is_said(tmp_path):
    write_images(tmp_path, "001.Black_footed_Albatross/a.png", "002.Crow/b.png")
    labelled = open_labelled(tmp_path)
    assert labelled.classnames == ["Black footed Albatross", "Crow"]
    assert labelled.notes == [
        "folder names begin with numbers, which are not part of the class names: "
        "001.Black_footed_Albatross = 'Black footed Albatross', 002.Crow = 'Crow', ..."
    ]


def test_letters_are_no_classes(tmp_path):
    write_images(tmp_path, "a/abbey/1.png", "a/access_road/1.png", "c/church/indoor/1.png", "c/church/outdoor/1.png")
    labelled = open_labelled(tmp_path)
    assert labelled.classnames == ["abbey", "access road", "church indoor", "church outdoor"]
    assert [labelled[index][1] for index in range(4)] == [0, 1, 2, 3]
    assert labelled.notes[0] == "folders are letters: the classes are the 4 folders below them, such as a/abbey"


def test_letters_that_hold_images_are_classes(tmp_path):
    write_images(tmp_path, "a/1.png", "b/more/1.png")
    assert open_labelled(tmp_path).classnames == ["a", "b"]


def test_images_in_sub_folders_alone_are_remarked(tmp_path):
    write_images(tmp_path, "cat/siamese/1.png", "cat/persian/1.png", "dog/husky/1.png")
    assert find_class_folders(tmp_path) == (
        ["cat", "dog"],
        [
            "warning: the images of all 2 classes are in 3 sub-folders, such as cat/persian; if those are the classes, "
            "move them all to one level"
        ],
    )
    write_images(tmp_path, "cat/2.png")
    assert find_class_folders(tmp_path) == (["cat", "dog"], [])
