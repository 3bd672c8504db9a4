"""A manifest for tars: ours again, and those of others in their own layouts."""

import errno
import json
import tarfile

import pytest

from bimodal_cl.data import Manifest
from tests.test_data_prep.raw_material import photo, write_files, write_tar


@pytest.fixture
def written(write_shards):
    return write_shards(7, 3)


def test_index_equals_the_written_manifest(prep, written):
    path = written / "manifest.json"
    before = path.read_bytes()
    done = prep("index", written)
    assert done.status == 0 and "7 images, 14 captions (lines) in 3 shards; unchanged" in done.out
    assert path.read_bytes() == before
    path.unlink()
    done = prep("index", written, "--captions", "lines", "--workers", 2)
    assert done.status == 0 and "unchanged" not in done.out
    expected = json.loads(before)
    for shard in expected["shards"]:
        del shard["sha256"]  # headers do not tell
    assert json.loads(path.read_text()) == expected


def test_foreign_layouts(prep, tmp_path):
    """img2dataset's (json, txt, jpg in any order), dots and folders in keys, texts of two lines, no text."""
    folder = tmp_path / "cc"
    metadata = b'{"status": "success"}'
    write_tar(
        folder / "10.tar",
        [("0001.json", metadata), ("0001.jpg", photo(1)), ("0001.txt", b"one\ncaption"), ("0002.jpg", photo(2))],
    )
    write_tar(
        folder / "2.tar",
        [
            ("./a/b.c.png", photo(3, format="PNG")),
            ("./a/b.c.txt", "猫".encode()),
            ("./a/" + "x" * 150 + ".JPEG", photo(4)),
            ("./a/" + "x" * 150 + ".txt", b"long name"),
            ("lonely.txt", b"no image"),
        ],
        tarfile.PAX_FORMAT,
    )
    write_files(folder, {"2.parquet": "x", "stats.json": "{}"})
    done = prep("index", folder)
    assert done.status == 0 and "4 images, 3 captions (whole) in 2 shards" in done.out
    assert "10.tar: 1 texts have several lines" not in done.err  # the first shard is looked at, in natural order
    manifest = Manifest.load(folder)
    assert [(s.name, s.num_images, s.num_texts) for s in manifest.shards] == [("2.tar", 2, 2), ("10.tar", 2, 1)]
    done = prep("index", folder, "--captions", "lines")
    assert "does not match these shards; give --overwrite" in done.error
    assert Manifest.load(folder) == manifest
    assert prep("index", folder, "--captions", "lines", "--overwrite").status == 0
    assert Manifest.load(folder).num_texts == 4


def test_a_hint_where_texts_have_lines(prep, written):
    (written / "manifest.json").unlink()
    done = prep("index", written)
    assert done.status == 0 and "7 images, 7 captions (whole)" in done.out
    assert "00000.tar: 3 texts have several lines" in done.err and "--captions lines" in done.err


def test_a_changed_shard_keeps_the_caption_mode(prep, written):
    tar = written / "00001.tar"
    tar.write_bytes(tar.read_bytes() + bytes(10240))  # more padding: another size, the same rows
    assert "--overwrite" in prep("index", written).error
    done = prep("index", written, "--overwrite")
    assert done.status == 0 and "7 images, 14 captions (lines)" in done.out
    assert Manifest.load(written).shards[1].bytes == tar.stat().st_size


def test_what_cannot_be_indexed(prep, written, tmp_path, monkeypatch):
    assert "did you mean 'to'?" in prep("index", tmp_path / "too").error
    assert "no .tar in" in prep("index", tmp_path / "raw").error
    assert "--num-workers: must be an integer of at least 1, got '0'" in prep("index", written, "--workers", 0).error
    (written / "manifest.json").unlink()
    data = (written / "00001.tar").read_bytes()
    for spoiled, reason in ((data[:700], "truncated"), (b"<html>" * 200, "not a tar"), (b"", "is empty")):
        (written / "00001.tar").write_bytes(spoiled)
        error = prep("index", written).error
        assert "00001.tar" in error and reason in error
    (written / "00001.tar").write_bytes(data)

    def refuse(self):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "save", refuse)
        assert f"cannot write to {written}: Read-only" in prep("index", written).error
    assert not (written / "manifest.json").exists()
