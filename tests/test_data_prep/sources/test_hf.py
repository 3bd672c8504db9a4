"""Hugging Face data sets: parquet files, folders of images, saved data sets; columns, splits, streaming."""

import json
from argparse import Namespace

import datasets
import pyarrow
import pytest
from datasets import Dataset, DatasetDict, Features, Image, List, Value
from pyarrow import parquet

from bimodal_cl.data.images.decode import BadImage
from bimodal_cl.errors import RunStopped, UserError
from data_prep.file_names import FileFinder
from data_prep.sources import hf
from tests.test_data_prep.raw_material import (
    captions_of,
    file_bytes,
    image_of,
    photo,
    photos,
    read_folder,
    write_files,
    write_photos,
)


def make_typed(rows=5):
    """Images as ``datasets`` stores them, captions in three columns, one of lists."""
    columns = {
        "picture": [{"bytes": photo(n), "path": f"{n}.jpg"} for n in range(rows)],
        "caption_0": [f"first {n}" for n in range(rows)],
        "caption_1": [f"second {n}" if n != 2 else None for n in range(rows)],
        "many": [[f"x {n}", f"y {n}"][: n % 3] for n in range(rows)],
        "label": list(range(rows)),
    }
    text = Value("string")
    types = {"picture": Image(), "caption_0": text, "caption_1": text, "many": List(text), "label": Value("int32")}
    return Dataset.from_dict(columns, features=Features(types))


@pytest.fixture
def typed(tmp_path):
    path = tmp_path / "typed.parquet"
    make_typed().to_parquet(path)
    return path


def write_parquet(path, **columns):
    parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("streaming", [(), ("--streaming",)])
def test_a_typed_parquet_file(write, typed, tmp_path, streaming):
    """Its one column of images and its numbered captions are found without being named; bytes stay as they are."""
    done = write("hf", "--dataset", typed, *streaming)
    assert "5 images, 9 captions" in done.out and "1 empty captions dropped" in done.out
    samples = done.samples()
    assert samples.sample_keys == [f"{n:09d}" for n in range(5)]
    assert samples.images == photos(range(5))
    assert captions_of(samples[1]) == ["first 1", "second 1"] and captions_of(samples[2]) == ["first 2"]
    named = ("--image-column", "picture", "--caption-column", "many, caption_0")
    assert write("hf", "--dataset", typed, *streaming, *named, to="named").samples().captions == [
        ["first 0"],
        ["x 1", "first 1"],
        ["x 2", "y 2", "first 2"],
        ["first 3"],
        ["x 4", "first 4"],
    ]


def test_the_same_bytes_streaming_or_not_and_whatever_num_proc(prep, tmp_path):
    make_typed(70).to_parquet(tmp_path / "70.parquet")
    flags = ("write", "hf", "--dataset", tmp_path / "70.parquet", "--shard-size", 30)
    assert prep(*flags, "--num-proc", 1, "--to", tmp_path / "a").status == 0
    assert prep(*flags, "--num-proc", 2, "--streaming", "--to", tmp_path / "b").status == 0
    assert file_bytes(tmp_path / "a") == file_bytes(tmp_path / "b")


@pytest.mark.parametrize("streaming", [(), ("--streaming",)])
def test_untyped_columns(write, tmp_path, streaming):
    """Plain bytes, a struct, a path beside the file; and cells that hold nothing usable."""
    write_files(tmp_path / "data", {"pictures/3.jpg": photo(3)})
    cells = {
        "bytes": [photo(1), b"", None],
        "struct": [{"bytes": photo(2), "path": None}, {"bytes": b"<html>", "path": "x.jpg"}, None],
        "path": ["pictures/3.jpg", "pictures/4.jpg", "http://example.org/4.jpg"],
    }
    for name, column in cells.items():
        file = write_parquet(tmp_path / "data" / f"{name}.parquet", image=column, text=["a", "b", "c"])
        done = write("hf", "--dataset", file, *streaming, to=name)
        assert done.status == 0 and "2 items skipped" in done.out
        assert "row 2: image: no image" in done.err
        (sample,) = read_folder(tmp_path / name)
        assert image_of(sample) in (photo(1), photo(2), photo(3)) and captions_of(sample) == ["a"]
    file = write_parquet(tmp_path / "data" / "n.parquet", image=[photo(1)] * 2, caption=[["a", "b"], ["c"]], n=[1, 2])
    done = write("hf", "--dataset", file, "--caption-column", "caption,n", *streaming, to="n")
    assert "no item that can be written (2 skipped)" in done.error and "neither text nor a list" in done.err


@pytest.mark.parametrize("streaming", [(), ("--streaming",)])
def test_lines_of_json(write, tmp_path, streaming):
    rows = [{"image": f"pictures/{n}.jpg", "captions": [f"a {n}", f"b {n}"]} for n in range(3)]
    write_files(tmp_path / "data", {f"pictures/{n}.jpg": photo(n) for n in range(3)})
    file = tmp_path / "data" / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    samples = write("hf", "--dataset", file, *streaming).samples()
    assert samples.images == photos(range(3))
    assert samples.captions == [[f"a {n}", f"b {n}"] for n in range(3)]
    error = write("hf", "--dataset", file, *streaming, "--image-column", "imag", to="no").error
    assert "no column 'imag' (--image-column); did you mean 'image'?" in error


@pytest.mark.parametrize("streaming", [(), ("--streaming",)])
def test_a_folder_of_images_with_splits(write, tmp_path, streaming):
    folder = tmp_path / "birds"
    for split, numbers in (("train", range(3)), ("test", range(3, 5))):
        lines = [json.dumps({"file_name": f"{n}.jpg", "caption": f"bird {n}"}) for n in numbers]
        files = {f"{split}/{n}.jpg": photo(n) for n in numbers}
        write_files(folder, {**files, f"{split}/metadata.jsonl": "\n".join(lines)})
    assert write("hf", "--dataset", folder, *streaming).status == 0
    found = {split: read_folder(tmp_path / "to" / split) for split in ("train", "test")}
    assert found["train"].images == photos(range(3))
    assert found["test"].captions == [["bird 3"], ["bird 4"]]
    one = write("hf", "--dataset", folder, "--split", "test", *streaming, to="one")
    assert one.status == 0 and file_bytes(tmp_path / "one") == file_bytes(tmp_path / "to" / "test")
    error = write("hf", "--dataset", folder, "--split", "tset", *streaming, to="no").error
    assert "tset" in error and "train" in error and "test" in error
    error = write("hf", "--dataset", folder, "--config", "large", *streaming, to="no").error
    assert "large" in error and not (tmp_path / "no").exists()


def test_a_slice_and_a_saved_data_set(write, tmp_path, typed):
    part = write("hf", "--dataset", typed, "--split", "train[1:3]", to="slice").samples()
    assert [captions[0] for captions in part.captions] == ["first 1", "first 2"]
    DatasetDict(train=make_typed(3), val=make_typed(2)).save_to_disk(tmp_path / "saved")
    assert write("hf", "--dataset", tmp_path / "saved").status == 0
    assert [len(read_folder(tmp_path / "to" / split)) for split in ("train", "val")] == [3, 2]
    assert write("hf", "--dataset", tmp_path / "saved", "--split", "val", to="val").status == 0
    assert len(read_folder(tmp_path / "val")) == 2
    error = write("hf", "--dataset", tmp_path / "saved", "--split", "vla", to="no").error
    assert "has no split 'vla'; did you mean 'val'?" in error


def test_our_own_shards_load_as_a_webdataset(write, tmp_path):
    raw = write_photos(tmp_path / "raw", range(3))
    assert write("folder", "--images", raw, to="shards").status == 0
    file = tmp_path / "shards" / "00000.tar"
    assert write("hf", "--dataset", file, "--streaming").samples().images == photos(range(3))


def test_wrong_columns_name_those_there_are(write, typed, tmp_path):
    def error(*flags):
        return write("hf", "--dataset", typed, *flags).error

    assert "no column 'pictur' (--image-column); did you mean 'picture'?" in error("--image-column", "pictur")
    assert "no column 'zzz' (--caption-column); valid: caption_0, " in error("--caption-column", "caption_0,zzz")
    labels = write_parquet(tmp_path / "labels.parquet", image=[photo(0)], label=[1])
    message = write("hf", "--dataset", labels).error
    assert "which column holds the captions? Give --caption-column; the columns are image, label" in message
    two = write_parquet(tmp_path / "two.parquet", left=[photo(0)], right=[photo(1)], caption=["x"])
    message = write("hf", "--dataset", two).error
    assert "which column holds the images? Give --image-column; the columns are left, right, caption" in message
    laion = write_parquet(tmp_path / "laion.parquet", URL=["http://host/a"], TEXT=["x"])
    message = write("hf", "--dataset", laion).error
    assert "no column holds images (URL, TEXT); its images are URLs: download them with img2dataset" in message
    assert not (tmp_path / "to").exists()


def test_data_sets_that_are_not_there(write, typed, tmp_path):
    def error(name, *flags):
        return write("hf", "--dataset", name, *flags).error

    assert "did you mean 'typed.parquet'?" in error(tmp_path / "typd.parquet")
    assert "no such folder" in error(tmp_path / "nowhere")
    assert error("nobody/nothing").startswith("--dataset nobody/nothing: ")
    (tmp_path / "empty").mkdir()
    assert "data files" in error(tmp_path / "empty")
    write_files(tmp_path, {"bad.parquet": "no table", "table.xlsx": "x"})
    assert "--dataset" in error(tmp_path / "bad.parquet") and "arquet" in error(tmp_path / "bad.parquet", "--streaming")
    assert "'.xlsx' files are not supported" in error(tmp_path / "table.xlsx")


def test_a_source_that_breaks_off():
    def rows(error):
        yield {"image": b"x"}
        raise error

    taken = hf._rows(rows(ConnectionError("reset\nby peer")), "a/b")
    assert next(taken) == {"image": b"x"}
    with pytest.raises(RunStopped, match="--dataset a/b: after 1 rows: reset by peer"):
        next(taken)
    with pytest.raises(UserError, match="after 1 rows: damaged"):
        list(hf._rows(rows(ValueError("damaged")), "a/b"))


def test_a_stream_that_does_not_know_its_columns(tmp_path):
    """Its first row tells them, and is not lost."""

    def rows():
        for n in range(3):
            yield {"image": photo(n), "caption": f"picture {n}", "other": n}

    args = Namespace(dataset="made", image_column=None, caption_column=None)
    stream = datasets.IterableDataset.from_generator(rows)
    assert stream.features is None
    (split,) = hf._plan_splits(args, "train", "", "train", stream, tmp_path)
    items = list(split.items)
    assert [(item.image, item.captions) for item in items] == [(photo(n), (f"picture {n}",)) for n in range(3)]


def test_a_member_of_a_remote_archive_is_fetched_where_it_is_encoded(tmp_path):
    write_files(tmp_path, {"1.jpg": photo(1)})
    fetch = hf._image({"bytes": None, "path": f"file://{tmp_path / '1.jpg'}"}, FileFinder(tmp_path))
    assert fetch() == photo(1)
    missing = hf._image({"bytes": None, "path": f"file://{tmp_path / '2.jpg'}"}, FileFinder(tmp_path))
    with pytest.raises(BadImage, match=r"cannot be read: .*2\.jpg"):
        missing()


def test_the_first_caption_column_there_is():
    args = Namespace(dataset="x", image_column=None, caption_column=None)
    names = ["jpg", "txt", "caption_1", "caption_10", "caption_2", "caption_x"]
    assert hf.find_columns(args, dict.fromkeys(names)) == ("jpg", ["txt"])
    names.remove("txt")
    assert hf.find_columns(args, dict.fromkeys(names)) == ("jpg", ["caption_1", "caption_2", "caption_10"])
