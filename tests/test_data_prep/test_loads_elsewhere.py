"""Shards as written load in plain webdataset and in open_clip's own loader, unchanged: every sample, every byte."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import webdataset

from tests.test_data_prep.open_clip_reader import read_captions
from tests.test_data_prep.raw_material import open_bytes, photo, write_files, write_photos

COUNT = 24
IN_ORDER = [20, 23, *range(20), 22, 21]  # natural order of the names: a.b.c, big, img0, ..., old, sub/x


@pytest.fixture
def shards(prep, tmp_path):
    """Names with dots and folders, an image that is converted, a PNG and a WebP; two captions each."""
    raw = write_photos(tmp_path / "raw", range(COUNT - 4), "a {n}\nb {n}\n")
    others = {"a.b.c": ("png", "PNG"), "sub/x": ("webp", "WEBP"), "old": ("gif", "GIF"), "big": ("jpg", "JPEG")}
    for number, (name, (extension, format)) in enumerate(others.items(), COUNT - 4):
        image = photo(number, (24, 16) if name != "big" else (600, 400), format)
        write_files(raw, {f"{name}.{extension}": image, f"{name}.txt": f"a {number}\nb {number}\n"})
    flags = ("--images", raw, "--max-side", 100, "--shard-size", 6, "--to", tmp_path / "to")
    assert prep("write", "folder", *flags).status == 0
    return sorted(map(str, (tmp_path / "to").glob("*.tar")))


def numbers(texts):
    """The images' numbers, from their captions."""
    first, second = zip(*(text.split("\n") for text in texts), strict=True)
    assert [line.removeprefix("a ") for line in first] == [line.removeprefix("b ") for line in second]
    return [int(line.removeprefix("a ")) for line in first]


def test_plain_webdataset(shards):
    raw = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert len(raw) == COUNT and len({sample["__key__"] for sample in raw}) == COUNT
    for sample in raw:
        (extension,) = set(sample) & {"jpg", "png", "webp"}
        assert not {name for name in sample if not name.startswith("__")} - {extension, "txt"}
        (number,) = numbers([sample["txt"].decode()])
        if number < COUNT - 4:
            assert extension == "jpg" and sample["jpg"] == photo(number)
    decoded = webdataset.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("jpg;png;webp", "txt")
    found = {number: image for image, text in decoded for number in numbers([text])}
    assert sorted(found) == list(range(COUNT))
    assert found[3].tobytes() == open_bytes(photo(3)).tobytes()
    assert found[COUNT - 1].size == (100, 67)


def test_the_evaluation_loader_of_open_clip(shards):
    assert numbers(read_captions(shards, COUNT, is_train=False)) == IN_ORDER


@pytest.mark.skipif("OPEN_CLIP_PYTHON" not in os.environ, reason="OPEN_CLIP_PYTHON names no interpreter for it")
@pytest.mark.parametrize("mode", ["train", "val"])
def test_open_clip_with_its_own_webdataset(shards, mode):
    """Its training loader needs webdataset 0.2: OPEN_CLIP_PYTHON has to have that and open_clip_torch."""
    command = [os.environ["OPEN_CLIP_PYTHON"], str(Path(__file__).with_name("open_clip_reader.py"))]
    done = subprocess.run([*command, mode, str(COUNT), *shards], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(numbers(json.loads(done.stdout))) == list(range(COUNT))
