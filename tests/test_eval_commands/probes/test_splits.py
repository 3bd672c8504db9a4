"""Which images ``bimodal-eval linear-probe`` and ``knn`` learn from and score, and how their classes are matched."""

from __future__ import annotations

import argparse

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image

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
    kind = Features({"image": Image(), "label": ClassLabel(names=["dog", "cat"])})
    images = [{"bytes": as_png(draw("red", number)), "path": None} for number in range(2)]
    rows = Dataset.from_dict({"image": images, "label": [1, 0]}, features=kind)
    DatasetDict(dict.fromkeys(("train", "validation", "test"), rows)).save_to_disk(tmp_path / "pets")
    assert open_splits(options(tmp_path / "pets"), validation=True)["val"].name == "validation"
