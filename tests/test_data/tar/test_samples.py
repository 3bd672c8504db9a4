"""Members grouped into samples: against a plain loop, for every reader of shards alike."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bimodal_cl.data import index_shard, open_labelled
from bimodal_cl.data.tar import member_names
from bimodal_cl.data.tar.samples import count_members, open_samples
from bimodal_cl.errors import UserError
from tests.test_data.tiny_shards import encode_image, write_tar

ENDINGS = [".jpg", ".PNG", ".tif", ".txt", ".caption", ".text", ".json", ".cls", ".heic", "." + "long" * 9 + "a"]
ENDINGS += ["." + "long" * 9 + "b"]
IMAGES, TEXTS = (".jpg", ".png", ".tif"), (".txt", ".caption", ".text")


def group_by_loop(names: list[str]) -> list[tuple[str, list[str]]]:
    """Key and endings of each sample, as one would write it down without arrays."""
    samples: list[tuple[str, list[str]]] = []
    for name in names:
        key, dot, ending = name.rpartition(".")
        ending = dot + ending.lower()
        if not samples or samples[-1][0] != key or ending in samples[-1][1]:
            samples.append((key, []))
        samples[-1][1].append(ending)
    return samples


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.tuples(st.sampled_from(["a", "b", "d/a", "a.b"]), st.sampled_from(ENDINGS)), max_size=14),
    chunk=st.sampled_from([2, 3, 8192]),
)
def test_every_reader_groups_as_a_plain_loop(tmp_path: Path, names: list[tuple[str, str]], chunk: int) -> None:
    members = [(key + ending, b"%d" % number) for number, (key, ending) in enumerate(names)]
    write_tar(tmp_path / "s.tar", members)
    expected = group_by_loop([name for name, _ in members])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(member_names, "_CHUNK", chunk)
        with open_samples(tmp_path / "s.tar") as tar:
            assert [(sample.key, list(sample.members)) for sample in tar.samples] == expected
            read = [tar.read(sample, ending) for sample in tar.samples for ending in sample.members]
            left_out = tar.left_out
        index = index_shard(tmp_path / "s.tar", "whole")
    assert read == [data for _, data in members]
    with_image = [(key, endings) for key, endings in expected if set(endings) & set(IMAGES)]
    assert index.keys == [key for key, _ in with_image]
    assert index.image_ext == [next(each for each in endings if each in IMAGES) for _, endings in with_image]
    has_text = [bool(set(endings) & set(TEXTS)) for _, endings in with_image]
    assert (index.text_offset >= 0).tolist() == has_text
    without = [ending for _, endings in expected if not set(endings) & set(IMAGES) for ending in endings]
    assert left_out == Counter(without) == Counter(index.left_out)
    count = Counter(ending for _, endings in with_image for ending in endings)
    num_images, num_texts = (sum(count[ending] for ending in known) for known in (IMAGES, TEXTS))
    assert index.counts.get("second_image", 0) == num_images - len(with_image)
    assert index.counts.get("second_text", 0) == num_texts - sum(has_text)
    assert count_members(tmp_path / "s.tar") == Counter(ending.lower() for _, ending in names)


@pytest.mark.parametrize(
    ("texts", "read"),
    [
        ([".text", ".caption", ".txt"], ".txt"),
        ([".text", ".caption"], ".caption"),
        ([".caption", ".text"], ".caption"),
        ([".TEXT"], ".text"),
    ],
)
def test_the_text_that_is_read(tmp_path: Path, texts: list[str], read: str) -> None:
    write_tar(tmp_path / "s.tar", [("a.jpg", b"1"), *((f"a{text}", text.lower().encode()) for text in texts)])
    index = index_shard(tmp_path / "s.tar")
    data = (tmp_path / "s.tar").read_bytes()
    assert data[index.text_offset[0] : index.text_offset[0] + index.text_size[0]] == read.encode()
    assert index.counts == ({"second_text": len(texts) - 1} if len(texts) > 1 else {})


def test_hidden_and_bare_names_are_counted(tmp_path: Path) -> None:
    names = ["a.jpg", "._a.jpg", "d.d/README", "x.y/.b.txt", "Makefile", "a.txt", "b.db", "c.\xe9x"]
    write_tar(tmp_path / "s.tar", [(name, b"") for name in names])
    assert index_shard(tmp_path / "s.tar").left_out == {"hidden": 2, "without an ending": 2, ".db": 1, ".éx": 1}


COLOURS = {"red": (220, 30, 30), "blue": (30, 40, 220)}


def colour(name: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), COLOURS[name]).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("label_first", [True, False])
@pytest.mark.parametrize("between", [True, False])
def test_a_repeated_key_keeps_its_own_label(tmp_path: Path, label_first: bool, between: bool) -> None:
    members = []
    for number, name in enumerate(("red", "blue", "red")):
        sample = [("s.cls", b"%d" % (name == "blue")), ("s.png", colour(name))]
        members += sample if label_first else sample[::-1]
        if between:
            members += [(f"t{number}.png", colour("blue")), (f"t{number}.cls", b"1")]
    write_tar(tmp_path / "test" / "0.tar", members)
    (tmp_path / "classnames.txt").write_text("red\nblue\n")
    data = open_labelled(tmp_path)
    assert len(data) == (6 if between else 3)
    for image, label in data:
        assert image.getpixel((4, 4)) == COLOURS["blue" if label else "red"]


def test_labelled_shards_take_every_format_and_name_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    formats = {
        "tif": "TIFF",
        "bmp": "BMP",
        "gif": "GIF",
        "jfif": "JPEG",
        "ppm": "PPM",
        "avif": "AVIF",
        "jp2": "JPEG2000",
    }
    members = []
    for ending, format in formats.items():
        members += [(f"{ending}.cls", b"0"), (f"{ending}.{ending}", encode_image(9, format=format))]
    write_tar(tmp_path / "test" / "0.tar", [*members, ("x.heic", b"?"), ("x.cls", b"0"), ("._y.png", b"")])
    (tmp_path / "classnames.txt").write_text("one\n")
    data = open_labelled(tmp_path)
    assert [image.size for image, _ in data] == [(12, 10)] * len(formats)
    assert caplog.messages == [f"{tmp_path / 'test'}: left out, since they are not images: 1 .cls, 1 .heic, 1 hidden"]


def zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("0.tar", data)
    return out.getvalue()


COMPRESSORS = {
    "gzip": (gzip.compress, "`gzip -dc < 0.tar > plain.tar` unpacks it"),
    "bzip2": (bz2.compress, "`bzip2 -dc < 0.tar > plain.tar` unpacks it"),
    "xz": (lzma.compress, "`xz -dc < 0.tar > plain.tar` unpacks it"),
    "zstd": (lambda data: b"\x28\xb5\x2f\xfd" + data, "`zstd -dc < 0.tar > plain.tar` unpacks it"),
    "zip": (zipped, "unzip it and pack it as a tar"),
}


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_a_compressed_shard_is_refused_by_its_kind(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "test" / "0.tar"
    write_tar(path, [("a.jpg", encode_image(0)), ("a.cls", b"0")])
    compress, how = COMPRESSORS[kind]
    path.write_bytes(compress(path.read_bytes()))
    (tmp_path / "classnames.txt").write_text("one\n")
    message = rf"0\.tar: is compressed \({kind}\); shards must be plain tars, since rows are read in any order: {how}$"
    for read in (index_shard, lambda path: index_shard(path, damaged="keep"), lambda _: open_labelled(tmp_path)):
        with pytest.raises(UserError, match=message):
            read(path)


def test_a_plain_tar_may_begin_like_a_compressed_one(tmp_path: Path) -> None:
    write_tar(tmp_path / "s.tar", [("BZh.jpg", b"1"), ("PK\x03\x04.jpg", b"2")])
    assert index_shard(tmp_path / "s.tar").keys == ["BZh", "PK\x03\x04"]


def test_many_endings_cost_no_time_a_member(tmp_path: Path) -> None:
    """Endings are numbered by their kinds, not one by one; the numbers are right past the first chunk."""
    members = [(f"{number:05d}.{ending}", b"") for number in range(3000) for ending in ("cls", "jpg", "json", "npy")]
    write_tar(tmp_path / "s.tar", members)
    index = index_shard(tmp_path / "s.tar")
    assert len(index) == 3000 and not index.left_out
    assert np.diff(index.image_offset).tolist() == [4 * 512] * 2999
