"""Hugging Face data sets with a row a caption, and with the split of a row in a column."""

from __future__ import annotations

import json

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from bimodal_cl.data import Manifest
from tests.test_data_prep.raw_material import photo, read_folder, write_files


def all_captions(folder):
    """The captions of every image of a folder, in order."""
    return read_folder(folder).captions


@pytest.fixture
def images(tmp_path):
    return write_files(tmp_path / "images", {f"{number}.jpg": photo(number) for number in range(3)})


def test_rows_of_one_file_are_one_image_wherever_they_stand(write, images, tmp_path):
    rows = [{"image": f"images/{number}.jpg", "caption": f"{turn} of {number}"} for turn in "ab" for number in range(3)]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    done = write("hf", "--dataset", tmp_path / "pairs.json")
    assert done.status == 0
    assert all_captions(tmp_path / "to") == [["a of 0", "b of 0"], ["a of 1", "b of 1"], ["a of 2", "b of 2"]]
    assert "  3 rows joined with an earlier row of the same image\n" in done.out


def write_parquet(path, images, numbers, **columns):
    cells = [{"bytes": (images / f"{number}.jpg").read_bytes(), "path": f"{number}.jpg"} for number in numbers]
    parquet.write_table(pa.table({"image": cells, "caption": [f"row {n}" for n in range(len(cells))], **columns}), path)


@pytest.mark.parametrize("flags", [(), ("--streaming",)])
def test_rows_of_equal_bytes_are_one_image_where_they_follow_one_another(write, images, tmp_path, flags):
    write_parquet(tmp_path / "rows.parquet", images, [0, 0, 1, 1, 1, 0])
    done = write("hf", "--dataset", tmp_path / "rows.parquet", *flags)
    assert done.status == 0
    written = Manifest.load(next(path.parent for path in (tmp_path / "to").rglob("manifest.json")))
    assert (written.num_images, written.num_texts) == (3, 6)
    assert all_captions(written.folder) == [["row 0", "row 1"], ["row 2", "row 3", "row 4"], ["row 5"]]


def test_a_column_of_splits_gives_a_folder_each(write, images, tmp_path):
    splits = ["test", "train", "restval", "val"]
    write_parquet(tmp_path / "all.parquet", images, [0, 1, 2, 0], split=splits)
    done = write("hf", "--dataset", tmp_path / "all.parquet")
    assert done.status == 0
    assert "all.parquet: rows are split into train, val, test by column 'split'" in done.err
    found = {path.parent.name: all_captions(path.parent) for path in (tmp_path / "to").glob("*/manifest.json")}
    assert found == {"train": [["row 1"], ["row 2"]], "val": [["row 3"]], "test": [["row 0"]]}


def test_a_column_of_that_name_that_holds_no_splits_is_left_alone(write, images, tmp_path):
    write_parquet(tmp_path / "all.parquet", images, [0, 1], split=["banana", "train"])
    done = write("hf", "--dataset", tmp_path / "all.parquet")
    assert done.status == 0 and all_captions(tmp_path / "to") == [["row 0"], ["row 1"]]
    assert "column 'split' is ignored, since 1 of its values are not names of splits" in done.err


def test_one_split_in_the_column_changes_nothing(write, images, tmp_path):
    write_parquet(tmp_path / "all.parquet", images, [0, 1], split=["val", "val"])
    assert write("hf", "--dataset", tmp_path / "all.parquet").status == 0
    assert Manifest.load(tmp_path / "to").num_images == 2


def test_rows_of_one_file_of_an_image_folder_are_one_image(write, images, tmp_path):
    rows = [{"file_name": f"{number}.jpg", "text": f"{turn} of {number}"} for turn in "ab" for number in range(3)]
    write_files(images, {"metadata.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})
    done = write("hf", "--dataset", images)
    assert done.status == 0
    assert all_captions(tmp_path / "to" / "train") == [[f"a of {n}", f"b of {n}"] for n in range(3)]


def write_split_table(tmp_path):
    rows = [(0, "test"), (1, "train"), (2, "restval"), (0, "val"), (1, "train")]
    lines = [f"images/{number}.jpg,row {n},{split}\n" for n, (number, split) in enumerate(rows)]
    write_files(tmp_path, {"all.csv": "".join(["image,caption,split\n", *lines, ",no image,train\n"])})


def test_a_column_of_splits_of_a_table(write, images, tmp_path):
    write_split_table(tmp_path)
    done = write("hf", "--dataset", tmp_path / "all.csv")
    assert done.status == 0 and "skipped all.csv, line 7: no image path" in done.err
    found = {path.parent.name: all_captions(path.parent) for path in (tmp_path / "to").glob("*/manifest.json")}
    assert found == {"train": [["row 1", "row 4"], ["row 2"]], "val": [["row 3"]], "test": [["row 0"]]}


def test_the_source_csv_writes_one_set_and_says_so(write, images, tmp_path):
    write_split_table(tmp_path)
    done = write("csv", "--csv", tmp_path / "all.csv")
    assert done.status == 0 and Manifest.load(tmp_path / "to").num_images == 3
    assert (
        "all.csv: all splits in column 'split' (train, val, test) are written to one folder; 'bimodal-prep write hf'"
        in done.err
    )


def test_a_slice_of_a_saved_data_set(prep, images, tmp_path):
    rows = {"image": [str(images / f"{n}.jpg") for n in (0, 1, 2)], "caption": ["a", "b", "c"]}
    saved = datasets.Dataset.from_dict(rows)
    datasets.DatasetDict(train=saved, test=saved.select([2])).save_to_disk(tmp_path / "saved")
    flags = ("write", "hf", "--dataset", tmp_path / "saved", "--split")
    assert prep(*flags, "train[1:]+test", "--to", tmp_path / "to").status == 0
    assert all_captions(tmp_path / "to") == [["b"], ["c", "c"]]
    assert "has no split 'tset'; did you mean 'test'?" in prep(*flags, "tset", "--to", tmp_path / "no").error
