"""What img2dataset writes, in its three formats: the same samples from each, its failures counted by kind."""

import json

import pyarrow
import pytest
from pyarrow import parquet

from tests.test_data_prep.raw_material import file_bytes, photo, photos, read_folder, write_files, write_tar

STATUS = {3: "failed_to_download", 4: "failed_to_resize", 7: "failed_to_download"}
PARTS = {"00000": range(6), "00001": range(6, 9)}
GOOD = [n for n in range(9) if n not in STATUS]


def metadata(n):
    status = STATUS.get(n, "success")
    error = None if n not in STATUS else "HTTP Error 404"
    return {
        "key": f"{n:09d}",
        "caption": f"picture\n{n}",
        "url": f"http://x/{n}",
        "status": status,
        "error_message": error,
    }


def write_sidecars(folder, tables=True, statistics=True):
    for name, numbers in PARTS.items():
        rows = [metadata(n) for n in numbers]
        if tables:
            parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{name}.parquet")
        failed = [row["status"] for row in rows if row["status"] != "success"]
        counts = {kind: failed.count(kind) for kind in ("failed_to_download", "failed_to_resize")}
        content = {"count": len(rows), "successes": len(rows) - len(failed), **counts, "duration": 1.5}
        if statistics:
            write_files(folder, {f"{name}_stats.json": json.dumps({**content, "status_dict": {"success": 1}})})


def write_webdataset(folder, **sidecars):
    for name, numbers in PARTS.items():
        members = []
        for n in (n for n in numbers if n not in STATUS):
            row = metadata(n)
            members += [(f"{row['key']}.jpg", photo(n)), (f"{row['key']}.json", json.dumps(row).encode())]
            members += [(f"{row['key']}.txt", row["caption"].encode())]
        write_tar(folder / f"{name}.tar", members)
    write_sidecars(folder, **sidecars)


def write_in_files(folder, **sidecars):
    for name, numbers in PARTS.items():
        for n in (n for n in numbers if n not in STATUS):
            row = metadata(n)
            files = {"jpg": photo(n), "json": json.dumps(row), "txt": row["caption"]}
            write_files(folder / name, {f"{row['key']}.{extension}": data for extension, data in files.items()})
    write_sidecars(folder, **sidecars)


def write_in_parquet(folder, **sidecars):
    folder.mkdir()
    write_sidecars(folder, **sidecars)
    for name, numbers in PARTS.items():
        rows = [{**metadata(n), "jpg": None if n in STATUS else photo(n)} for n in numbers]
        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{name}.parquet")


WRITERS = {"webdataset": write_webdataset, "files": write_in_files, "parquet": write_in_parquet}


@pytest.mark.parametrize("kind", WRITERS)
def test_all_formats_give_the_same(write, tmp_path, kind):
    WRITERS[kind](tmp_path / "downloaded")
    done = write("img2dataset", tmp_path / "downloaded", "--shard-size", 4)
    assert "6 images, 6 captions in 2 shards" in done.out and "skipped" not in done.out
    assert "2 images are listed in the source but missing: failed_to_download" in done.out
    assert "1 images are listed in the source but missing: failed_to_resize" in done.out
    samples = done.samples()
    assert samples.sample_keys == [f"{n:09d}" for n in GOOD]
    assert samples.images == photos(GOOD)
    assert samples.captions == [[f"picture {n}"] for n in GOOD]  # one each, on one line
    assert [json.loads(sample[1]["json"]) for sample in samples] == [metadata(n) for n in GOOD]


@pytest.mark.parametrize("sidecars", [{"tables": False}, {"statistics": False}, {"tables": False, "statistics": False}])
def test_failures_are_counted_from_what_there_is(write, tmp_path, sidecars):
    write_webdataset(tmp_path / "downloaded", **sidecars)
    done = write("img2dataset", tmp_path / "downloaded")
    assert done.status == 0 and "6 images" in done.out
    known = sidecars != {"tables": False, "statistics": False}
    assert ("2 images are listed in the source but missing: failed_to_download" in done.out) == known


def test_the_same_bytes_whatever_num_proc(prep, tmp_path):
    for name in ("00000", "00001"):
        members = [
            (f"{name}{n:04d}.{ext}", photo(n) if ext == "jpg" else b"x") for n in range(40) for ext in ("jpg", "txt")
        ]
        write_tar(tmp_path / "downloaded" / f"{name}.tar", members)
    for number in (1, 2):
        flags = ("--shard-size", 30, "--num-proc", number, "--to", tmp_path / str(number))
        assert prep("write", "img2dataset", tmp_path / "downloaded", *flags).status == 0
    assert file_bytes(tmp_path / "1") == file_bytes(tmp_path / "2")
    assert len(read_folder(tmp_path / "1")) == 80


def test_an_unfinished_part_gives_its_whole_samples(write, tmp_path):
    """A killed download leaves a tar without an end and no statistics."""
    write_webdataset(tmp_path / "downloaded")
    tar = tmp_path / "downloaded" / "00001.tar"
    data = tar.read_bytes()
    tar.write_bytes(data[: data.index(b"000000008.json") + 600])
    (tmp_path / "downloaded" / "00001_stats.json").unlink()
    (tmp_path / "downloaded" / "00001.parquet").write_bytes(b"PAR1 without its end")
    done = write("img2dataset", tmp_path / "downloaded")
    assert "1 items skipped" in done.out
    assert (
        "skipped 00001.tar: truncated: the member at byte" in done.err and "the samples before it are used" in done.err
    )
    assert "00001.parquet: cannot be read as parquet" in done.err
    assert "1 images are listed in the source but missing: failed_to_download" in done.out  # of the other part
    assert done.samples().sample_keys == [f"{n:09d}" for n in GOOD if n != 8]


def test_samples_that_cannot_be_used_are_named(write, tmp_path):
    """Without a text the caption of the metadata counts; broken metadata, no caption, no image."""
    folder = tmp_path / "downloaded"
    caption = json.dumps({"caption": "from the json"}).encode()
    members = [("0.jpg", photo(0)), ("0.json", caption), ("1.jpg", photo(1)), ("1.json", b"{"), ("1.txt", b"x")]
    members += [("2.jpg", photo(2)), ("3.txt", b"x"), ("4.png", b"<html>"), ("4.txt", b"x"), ("5.jpg", photo(5))]
    write_tar(folder / "00000.tar", [*members, ("5.txt", b"caf\xe9"), ("5.json", b"[1]")])
    done = write("img2dataset", folder)
    assert "5 items skipped" in done.out
    for line in (
        "skipped 00000.tar 1: its .json is not JSON",
        "skipped 2: no caption",
        "skipped 00000.tar 3: no image (only .txt)",
        "skipped 4: not an image",
        "skipped 00000.tar 5: its .json is not JSON: not an object",
    ):
        assert line in done.err
    assert done.samples().captions == [["from the json"]]


def test_folders_of_something_else(write, tmp_path):
    def error(folder):
        return write("img2dataset", folder).error

    write_files(tmp_path / "photos", {"a.jpg": photo(0)})
    assert "is not a folder of img2dataset" in error(tmp_path / "photos")
    assert "did you mean 'photos'?" in error(tmp_path / "photo")
    write_files(tmp_path / "records", {"00000.tfrecord": "x"})
    assert "webdataset, files or parquet" in error(tmp_path / "records")
    write_files(tmp_path / "tables", {"00000.parquet": "no table"})
    assert "is not a folder of img2dataset" in error(tmp_path / "tables")
    assert not (tmp_path / "to").exists()


def test_an_unfinished_table_is_named(write, tmp_path):
    write_in_parquet(tmp_path / "tables")
    (tmp_path / "tables" / "00001.parquet").write_bytes(b"PAR1 without its end")
    done = write("img2dataset", tmp_path / "tables")
    assert "skipped 00001.parquet: cannot be read as parquet" in done.err
    assert done.samples().sample_keys == [f"{n:09d}" for n in GOOD if n < 6]


@pytest.mark.parametrize(
    ("captions", "kept", "reason"),
    [
        (["None", None, "NA", "nan"], ["None", "NA", "nan"], "skipped 1: no caption"),
        ([float("nan"), float("nan")], [], "skipped 1: no caption"),  # a column without any text, by pandas
        ([["a", "b"], ["c"]], [], "00000.parquet 1: its caption is not text (['c'])"),
        ([1, 2], [], "00000.parquet 1: its caption is not text (2)"),
    ],
)
def test_captions_in_parquet_are_text(write, tmp_path, captions, kept, reason):
    """A missing one was once the word "nan", and a list its own notation."""
    rows = {"key": [str(n) for n in range(len(captions))], "jpg": photos(range(len(captions)))}
    (tmp_path / "got").mkdir()
    parquet.write_table(pyarrow.table({**rows, "caption": captions}), tmp_path / "got" / "00000.parquet")
    done = write("img2dataset", tmp_path / "got")
    assert reason in done.err
    if kept:
        assert done.samples().captions == [[text] for text in kept]
    else:
        assert "no item that can be written" in done.error


@pytest.mark.parametrize("kind", ["webdataset", "files"])
def test_an_image_that_was_listed_with_each_of_its_captions_is_one_image(write, tmp_path, kind):
    """As COCO's are: five rows of one address, whose downloads end in any order."""
    samples = []
    for turn, caption in enumerate("abc"):
        for n in (0, 1):
            row = {"key": f"{2 * turn + n:09d}", "caption": f"{caption} of {n}", "sha256": f"{n:064x}"}
            files = {"jpg": photo(n), "json": json.dumps(row).encode(), "txt": row["caption"].encode()}
            samples.append({f"{row['key']}.{extension}": data for extension, data in files.items()})
    if kind == "webdataset":
        write_tar(tmp_path / "in" / "00000.tar", [member for sample in samples for member in sample.items()])
    else:
        for sample in samples:
            write_files(tmp_path / "in" / "00000", sample)
    done = write("img2dataset", tmp_path / "in")
    written = done.samples()
    assert written.captions == [["a of 0", "b of 0", "c of 0"], ["a of 1", "b of 1", "c of 1"]]
    assert written.images == [photo(0), photo(1)]
    assert "  4 rows joined with an earlier row of the same image\n" in done.out
