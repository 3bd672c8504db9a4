"""Labelled data sets of Hugging Face's ``datasets``."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Sequence, Value

from bimodal_cl.data import open_labelled
from bimodal_cl.data.labelled.layouts.columns import ColumnOptions
from tests.refusals import refused
from tests.test_data.tiny_shards import encode_image

CLASSES = ["red_fox", "dog", "cat"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def make(labels, kind, column="label", **more):
    images = [{"bytes": encode_image(number), "path": None} for number in range(len(labels))]
    features = Features({"image": Image(), column: kind, **dict.fromkeys(more, kind)})
    return Dataset.from_dict({"image": images, column: labels, **more}, features=features)


def test_a_saved_data_set_keeps_the_order_of_its_classes(tmp_path):
    DatasetDict(
        {"train": make([0], ClassLabel(names=CLASSES)), "test": make([2, 0, 1], ClassLabel(names=CLASSES))}
    ).save_to_disk(tmp_path / "pets")
    data = open_labelled(tmp_path / "pets")
    assert (data.name, data.classnames, data.labels) == ("pets", ["red fox", "dog", "cat"], [2, 0, 1])
    assert data[1][0].mode == "RGB"
    (tmp_path / "pets" / "classnames.txt").write_text("Fuchs\nHund\nKatze\n")
    (tmp_path / "pets" / "zeroshot_classification_templates.txt").write_text("ein {c}\n")
    data = open_labelled(tmp_path / "pets", split="train")
    assert (data.classnames, data.labels, data.templates) == (["Fuchs", "Hund", "Katze"], [0], ["ein {c}"])
    with refused("--split val: not in .*pets; valid: test, train"):
        open_labelled(tmp_path / "pets", split="val")


def test_a_parquet_file_and_a_folder_of_them(tmp_path):
    rows = make([0, 1], ClassLabel(names=CLASSES), column="fine")
    rows.to_parquet(tmp_path / "one.parquet")
    data = open_labelled(tmp_path / "one.parquet")
    assert (data.name, data.classnames, data.labels) == ("one", ["red fox", "dog", "cat"], [0, 1])
    (tmp_path / "hub" / "data").mkdir(parents=True)
    rows.to_parquet(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet")
    make([1], ClassLabel(names=CLASSES), column="fine").to_parquet(tmp_path / "hub" / "data" / "train-00000.parquet")
    assert [open_labelled(tmp_path / "hub", split=split).labels for split in ("test", "train")] == [[0, 1], [1]]
    with refused("--split val: not in .*hub; valid: test, train"):
        open_labelled(tmp_path / "hub", split="val")
    (tmp_path / "hub" / "val").mkdir()
    rows.to_parquet(tmp_path / "hub" / "val" / "0.parquet")
    assert open_labelled(tmp_path / "hub", split="val").labels == [0, 1]


def test_lists_are_labels_of_several_classes(tmp_path):
    make([[0, 2], [], [1]], Sequence(ClassLabel(names=CLASSES)), "labels").save_to_disk(tmp_path / "a")
    assert [label.tolist() for label in open_labelled(tmp_path / "a").labels] == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    make([["dog", "cat"], ["ant"]], Sequence(Value("string")), "tags").save_to_disk(tmp_path / "b")
    data = open_labelled(tmp_path / "b", columns=ColumnOptions(label="tags"))
    assert data.classnames == ["ant", "cat", "dog"] and data.labels[0].tolist() == [0, 1, 1]
    make(["dog;cat", "ant"], Value("string")).save_to_disk(tmp_path / "c")
    assert open_labelled(tmp_path / "c", columns=ColumnOptions(separator=";")).labels[0].tolist() == [0, 1, 1]


def test_numbers_need_names(tmp_path):
    make([2, 0], Value("int64")).save_to_disk(tmp_path / "a")
    data = open_labelled(tmp_path / "a")
    assert data.classnames == ["0", "2"] and "class names are numbers" in data.notes[0]
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\n")
    data = open_labelled(tmp_path / "a", classnames=tmp_path / "names.txt")
    assert (data.classnames, data.labels) == (["ant", "bee", "cat"], [2, 0])
    # The names of a ClassLabel may be numbers themselves: values are places all the same.
    make([1, 0], ClassLabel(names=["1", "2"])).save_to_disk(tmp_path / "b")
    assert open_labelled(tmp_path / "b").labels == [1, 0]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (
            ([0, 1], ClassLabel(names=CLASSES)),
            {"label": "lable"},
            r"no column 'lable' \(--label-column\); did you mean",
        ),
        (([0, 1], Value("int64")), {"image": "label"}, "--image-column label: holds no images"),
        (([0, -1], ClassLabel(names=CLASSES)), {}, r"row 1, column 'label': class -1 is outside \[0, 3\)"),
        ((["a", None], Value("string")), {}, "row 1, column 'label': no label"),
    ],
)
def test_mistakes_are_named(rows, columns, message, tmp_path):
    make(*rows).save_to_disk(tmp_path / "a")
    with refused(message):
        open_labelled(tmp_path / "a", columns=ColumnOptions(**columns))


def test_two_columns_of_classes_are_a_question(tmp_path):
    make([0, 1], ClassLabel(names=CLASSES), "fine_label", coarse_label=[1, 1]).save_to_disk(tmp_path / "a")
    with refused("which column is it, 'fine_label', 'coarse_label'. Give --label-column"):
        open_labelled(tmp_path / "a")
    assert open_labelled(tmp_path / "a", columns=ColumnOptions(label="coarse_label")).labels == [1, 1]


def test_an_image_that_is_missing_or_broken_is_named_by_its_row(tmp_path):
    rows = make([0, 1], ClassLabel(names=CLASSES))
    broken = [{"bytes": io.BytesIO(b"?").getvalue(), "path": None}, None]
    Dataset.from_dict({"image": broken, "label": [0, 1]}, features=rows.features).save_to_disk(tmp_path / "a")
    data = open_labelled(tmp_path / "a")
    for index, reason in ((0, ""), (1, "the row holds no image")):
        with refused(f"a, row {index}: cannot be used: .*{reason}"):
            data[index]


def test_relative_paths_start_from_the_data_or_a_root(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for folder, number in (("data", 1), ("data/folder", 2), ("pictures", 3)):
        (tmp_path / folder / "a").mkdir(parents=True)
        (tmp_path / folder / "a" / "1.png").write_bytes(encode_image(number))
    rows = Dataset.from_dict({"image": ["a/1.png"], "label": ["dog"]})
    rows.to_parquet(tmp_path / "data" / "test.parquet")
    rows.to_parquet(tmp_path / "data" / "folder" / "test.parquet")
    root = ColumnOptions(root=tmp_path / "pictures")
    for data, columns, number in (
        ("data/test.parquet", None, 1),
        ("data/folder", None, 2),
        ("data/test.parquet", root, 3),
        ("data/folder", root, 3),
    ):
        assert open_labelled(tmp_path / data, columns=columns).source.read(0) == encode_image(number)
    with refused("--root nowhere: no such folder"):
        open_labelled(tmp_path / "data" / "test.parquet", columns=ColumnOptions(root=Path("nowhere")))


def test_the_hub_is_asked_by_name(monkeypatch, tmp_path):
    asked = []

    def load(name, configuration):
        asked.append((name, configuration))
        return DatasetDict({"test": make([1, 0], ClassLabel(names=CLASSES))})

    monkeypatch.setattr("datasets.load_dataset", load)
    data = open_labelled("hf:somebody/pets")
    assert (data.name, data.labels) == ("somebody/pets", [1, 0])
    open_labelled("hf:somebody/pets:small")
    assert asked == [("somebody/pets", None), ("somebody/pets", "small")]


def test_a_hub_that_cannot_be_reached_is_said():
    with refused("--data hf:somebody/no-such-pets: .*somebody/no-such-pets"):
        open_labelled("hf:somebody/no-such-pets")
