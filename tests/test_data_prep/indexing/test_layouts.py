"""Whose shards these are, and what follows for their captions."""

import json

import pytest

from bimodal_cl.data import Manifest
from bimodal_cl.data.storage.storage import Storage
from data_prep.indexing.index import index_shards
from tests.test_data.shard_server import serve
from tests.test_data_prep.raw_material import photo, write_files, write_photos, write_tar

IMG2DATASET = {"key": "000000000", "status": "success", "caption": "a", "url": "https://x/y.jpg", "sha256": "0"}


def write_samples(path, *texts, json_keys=None, extension=".txt"):
    """Samples of an image, perhaps a JSON, and a text each (None: none)."""
    members = []
    for number, text in enumerate(texts):
        members.append((f"{number:09d}.jpg", photo(number)))
        if json_keys is not None:
            members.append((f"{number:09d}.json", json.dumps(dict.fromkeys(json_keys, "x")).encode()))
        if text is not None:
            members.append((f"{number:09d}{extension}", text.encode()))
    write_tar(path, members)


@pytest.mark.parametrize(
    ("file", "json_keys", "name"),
    [
        ("00000.tar", IMG2DATASET, "img2dataset"),
        ("00000000.tar", [*IMG2DATASET, "uid", "original_width"], "DataComp"),
        ("00000.tar", [*IMG2DATASET, "similarity", "punsafe"], "LAION"),
        ("cc3m-train-0000.tar", IMG2DATASET, "CC3M"),
        ("cc12m-train-0000.tar", IMG2DATASET, "CC12M"),
    ],
)
def test_layouts_of_one_caption_a_text(prep, tmp_path, file, json_keys, name):
    write_samples(tmp_path / file, "one\ncaption", "another", json_keys=json_keys)
    done = prep("index", tmp_path)
    assert done.status == 0 and "2 images, 2 captions (whole) in 1 shards" in done.out
    assert f"  layout of {name}: the whole text is one caption\n" in done.out
    assert f"{file}: 1 texts have several lines" in done.err
    assert prep("index", tmp_path, "--captions", "lines", "--overwrite").status == 0  # the flag is above the layout
    assert Manifest.load(tmp_path).num_texts == 3


def test_a_dropped_connection_does_not_change_the_captions(tmp_path):
    """A request for a file next to a remote shard is retried as often as one for the shard."""
    write_samples(tmp_path / "far" / "0.tar", "one\ncaption")
    write_files(tmp_path / "far", {"nshards.txt": "1"})
    storage = Storage(tmp_path / "cache", retries=2, first_delay=0.01)
    with serve(tmp_path / "far") as server:
        server.fault = lambda _: "drop" if server.asked_for("nshards.txt") == 1 else ""
        report = index_shards([f"{server.url}/0.tar"], tmp_path / "to", num_workers=1, storage=storage)
        assert server.asked_for("nshards.txt") == 2
        assert report.manifest.captions == "lines" and report.manifest.num_texts == 2
        server.fault = lambda _: "503" if server.asked[-1][0].endswith("nshards.txt") else ""
        with pytest.raises(OSError, match=r"nshards\.txt: the server answers 503.*tried 3 times"):
            index_shards([f"{server.url}/0.tar"], tmp_path / "other", num_workers=1, storage=storage)
        server.fault = lambda _: "404" if server.asked[-1][0].endswith("nshards.txt") else ""
        report = index_shards([f"{server.url}/0.tar"], tmp_path / "other", num_workers=1, storage=storage)
        assert report.manifest.captions == "whole"


def test_clip_benchmark_retrieval_has_a_caption_a_line(prep, tmp_path):
    write_samples(tmp_path / "0.tar", "one\ntwo\nthree", "four\nfive")
    assert "2 captions (whole)" in prep("index", tmp_path).out  # nothing but its neighbour tells the layout
    (tmp_path / "manifest.json").unlink()
    write_files(tmp_path, {"nshards.txt": "1"})
    done = prep("index", tmp_path)
    assert done.status == 0 and "2 images, 5 captions (lines) in 1 shards" in done.out
    assert "  layout of CLIP_benchmark retrieval: each line of a .txt is a caption\n" in done.out


def test_clip_benchmark_classification_has_no_captions(prep, tmp_path):
    write_samples(tmp_path / "0.tar", "3", "5", extension=".cls")
    done = prep("index", tmp_path)
    assert done.status == 0 and "2 images, 0 captions" in done.out
    assert "layout of CLIP_benchmark classification: it has labels and no captions; `bimodal-eval zero-" in done.out


def test_captions_in_json_only_are_said_not_to_be_read(prep, tmp_path):
    write_samples(tmp_path / "0.tar", None, None, json_keys=["caption", "width"])
    done = prep("index", tmp_path)
    assert done.status == 0 and "2 images, 0 captions" in done.out
    assert "captions in .json only: captions in .json ('caption') are not read, only those in .txt" in done.out
    assert "  2 no_caption (replaced): the image has no .txt" in done.out


def test_our_own_and_unknown_ones(prep, write, tmp_path):
    raw = write_photos(tmp_path / "raw", range(2), "a\nb\n")
    assert write("folder", "--images", raw, to="own").status == 0
    assert "layout of bimodal-prep: each line of a .txt is a caption" in prep("index", tmp_path / "own").out
    write_samples(tmp_path / "plain.tar", "a", "b")
    done = prep("index", tmp_path / "plain.tar", "--to", tmp_path)
    assert done.status == 0 and "2 captions (whole)" in done.out and "layout" not in done.out


def test_a_damaged_first_shard_still_tells(prep, tmp_path):
    write_samples(tmp_path / "0.tar", "a", "b", json_keys=IMG2DATASET)
    whole = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(whole[: len(whole) // 2])
    write_samples(tmp_path / "1.tar", "c", json_keys=IMG2DATASET)
    done = prep("index", tmp_path, "--damaged", "keep")
    assert done.status == 0 and "layout of img2dataset" in done.out
    for garbage in (b"", b"\xff" * 5000):
        (tmp_path / "0.tar").write_bytes(garbage)
        done = prep("index", tmp_path, "--damaged", "keep", "--overwrite")
        assert done.status == 0 and "1 images, 1 captions (whole) in 2 shards" in done.out
