"""The classes of a map are found in the data, and no two of either become one."""

from __future__ import annotations

import pytest

from bimodal_cl.data.labelled.class_map import ClassMap
from bimodal_cl.data.labelled.images import ImageFiles, LabelledImages
from tests.refusals import refused


def images_of(folders):
    """Return a data set with one image in each class folder."""
    labels = list(range(len(folders)))
    paths = [f"{folder}/0.png" for folder in folders]
    return LabelledImages(
        "pets", list(folders), None, labels, ImageFiles(paths), dict(zip(folders, labels, strict=True))
    )


@pytest.mark.parametrize(
    ("folders", "keys", "found"),
    [
        (["Red_fox", "dog"], ["dog", "red fox"], {"Red_fox": 1, "dog": 0}),
        (["Red", "red"], ["red", "Red"], {"Red": 1, "red": 0}),
        (["RED", "red", "dog"], ["red", "dog"], {"red": 0, "dog": 1}),
    ],
)
def test_an_equal_key_wins_over_one_that_is_alike(folders, keys, found):
    mapped = ClassMap("map.json", {key: [key] for key in keys}).apply(images_of(folders))
    assert mapped.class_of_folder == found
    assert mapped.labels == [found[folder] for folder in folders if folder in found]
    assert [mapped.source.describe(row) for row in range(len(mapped))] == [
        f"{folder}/0.png" for folder in folders if folder in found
    ]
    left_out = [folder for folder in folders if folder not in found]
    assert all(any("left out" in note and folder in note for note in mapped.notes) for folder in left_out)


@pytest.mark.parametrize(
    ("folders", "keys", "message"),
    [
        (["Red", "RED"], ["red"], "'red' may mean the classes 'Red' and 'RED' of the data; write each as there"),
        (["RED"], ["red", "Red"], "'red' and 'Red' may both mean class 'RED' of the data; write it as there"),
    ],
)
def test_no_two_classes_become_one(folders, keys, message):
    with refused(f"--class-map map.json: {message}"):
        ClassMap("map.json", {key: [key] for key in keys}).apply(images_of(folders))
