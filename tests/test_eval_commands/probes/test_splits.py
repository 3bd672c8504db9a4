"""Which images ``bimodal-eval linear-probe`` and ``knn`` learn from and score, and how their classes are matched."""

from __future__ import annotations

import argparse

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value

from eval.cli import main
from eval.linear_probe.splits import open_splits
from tests.refusals import read_mistake, refused
from tests.test_eval_commands.conftest import as_png, draw


def options(data, **more):
    flags = {"train_split": "train", "split": "test", "val_split": None, "classnames": None}
    columns = dict.fromkeys(("image_column", "label_column", "label_separator", "root"))
    return argparse.Namespace(data=str(data), **{**flags, **columns, **more})


@pytest.fixture
def write_table(tmp_path):
    """Return a function that writes a table of (label, split) rows, and an image for each."""

    def write(rows, header="image,label,split", name="pets.csv", encoding="utf-8"):
        lines = [header]
        for number, row in enumerate(rows):
            (tmp_path / f"{number}.png").write_bytes(as_png(draw("red", number)))
            lines.append(",".join([f"{number}.png", *row]))
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding=encoding)
        return tmp_path / name

    return write


PETS = [("dog", "train"), ("cat", "train"), ("dog", "val"), ("cat", "test"), ("dog", "test")]


def test_the_split_for_validation_is_found(write_table):
    table = write_table(PETS)
    found = open_splits(options(table), validation=True)
    assert {part: (split.name, len(split.labelled)) for part, split in found.items()} == {
        "train": ("train", 2),
        "test": ("test", 2),
        "val": ("val", 1),
    }
    assert set(open_splits(options(table))) == {"train", "test"}
    table = write_table([row for row in PETS if row[1] != "val"])
    assert set(open_splits(options(table), validation=True)) == {"train", "test"}


def test_a_damaged_split_for_validation_is_refused_not_replaced(write_table, run_folder, capsys):
    table = write_table(PETS)
    (table.parent / "2.png").unlink()
    error = read_mistake(capsys, main, "linear-probe", run_folder, "--data", table)
    assert "pets.csv, line 4: no such image file" in error and "2.png" in error


@pytest.mark.parametrize(
    ("header", "encoding", "change"),
    [
        ("image, label, split", "utf-8", str),
        ("split,label,image", "utf-8-sig", str),
        ("image|label|split", "utf-8", lambda text: text.replace(",", "|")),
    ],
)
def test_every_table_that_can_be_read_can_be_learned_from(header, encoding, change, write_table):
    table = write_table(PETS)
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    if header.startswith("split"):
        rows = [row[::-1] for row in rows]
    text = "\n".join([header, *(change(",".join(row)) for row in rows)]) + "\n"
    table.write_text(text, encoding=encoding)
    assert [len(split.labelled) for split in open_splits(options(table)).values()] == [2, 2]


def test_data_that_do_not_tell_splits_apart_are_refused(write_table, tmp_path):
    with refused(r"pets\.csv: has no column 'split'"):
        open_splits(options(write_table([("dog",), ("cat",)], header="image,label")))
    with refused(r"pets\.csv: 2 columns are called 'split'"):
        open_splits(options(write_table([(*row, "test") for row in PETS], header="image,label,split,split")))
    rows = Dataset.from_dict({"image": ["a.png", "b.png"], "label": ["dog", "cat"]})
    rows.to_parquet(tmp_path / "pets.parquet")
    rows.save_to_disk(tmp_path / "saved")
    for data in ("pets.parquet", "saved"):
        with refused(f"--data .*{data}: holds one split alone"):
            open_splits(options(tmp_path / data))


def test_splits_of_a_saved_data_set_are_found(tmp_path):
    rows = rows_of([1, 0], ["dog", "cat"])
    DatasetDict(dict.fromkeys(("train", "validation", "test"), rows)).save_to_disk(tmp_path / "pets")
    assert open_splits(options(tmp_path / "pets"), validation=True)["val"].name == "validation"


@pytest.mark.parametrize(
    ("train", "test", "classnames", "matched"),
    [
        (
            ["001.dog", "002.Crane", "003.Crane"],
            ["002.Crane", "003.Crane"],
            ["dog", "Crane", "Crane"],
            [1, 2],
        ),
        (["001.dog", "002.cat"], ["001.dog"], ["dog", "cat"], [0]),
        (["10", "2"], ["10"], ["2", "10"], [1]),
    ],
)
@pytest.mark.parametrize("layout", ["table", "saved", "folders"])
def test_classes_are_matched_by_their_labels(layout, train, test, classnames, matched, write_table, tmp_path):
    data = write_splits(layout, {"train": train, "test": test}, write_table, tmp_path)
    found = open_splits(options(data))
    assert found["train"].labelled.classnames == classnames
    assert found["test"].class_of_label.tolist() == matched
    assert found["test"].targets().tolist() == matched


@pytest.mark.parametrize("layout", ["table", "saved", "folders"])
def test_another_label_of_the_same_name_is_another_class(layout, write_table, tmp_path):
    labels = {"train": ["001.dog", "002.cat"], "test": ["001.dog", "003.cat"]}
    data = write_splits(layout, labels, write_table, tmp_path)
    with refused("--split test: 1 of its 2 classes are not among the 2 of the training images, such as '003.cat'"):
        open_splits(options(data))


def test_the_classes_of_a_column_s_type_are_matched_by_name(tmp_path):
    DatasetDict(
        {"train": rows_of([0, 1, 2], ["dog", "ant", "cat"]), "test": rows_of([0, 1], ["cat", "dog"])}
    ).save_to_disk(tmp_path / "pets")
    assert open_splits(options(tmp_path / "pets"))["test"].targets().tolist() == [2, 0]


def test_a_list_names_the_classes_of_all_splits(write_table):
    table = write_table([("0", "train"), ("cat", "train"), ("2", "train"), ("2", "test"), ("dog", "test")])
    (table.parent / "classnames.txt").write_text("dog\nant\ncat\n")
    assert open_splits(options(table))["test"].targets().tolist() == [2, 0]


def write_splits(layout, labels_of, write_table, tmp_path):
    """Write an image for each label of each split."""
    if layout == "table":
        return write_table([(label, split) for split, labels in labels_of.items() for label in labels])
    if layout == "saved":
        DatasetDict({split: rows_of(labels) for split, labels in labels_of.items()}).save_to_disk(tmp_path / "pets")
        return tmp_path / "pets"
    for split, labels in labels_of.items():
        for label in labels:
            (tmp_path / "pets" / split / label).mkdir(parents=True)
            (tmp_path / "pets" / split / label / "0.png").write_bytes(as_png(draw("red", 0)))
    return tmp_path / "pets"


def rows_of(labels, classes=None):
    """Return a data set with an image for each label, which is a text or a number of ``classes``."""
    images = [{"bytes": as_png(draw("red", number)), "path": None} for number in range(len(labels))]
    kind = ClassLabel(names=classes) if classes else Value("string")
    return Dataset.from_dict({"image": images, "label": labels}, Features({"image": Image(), "label": kind}))
