"""Rows of a shard from its headers: against tarfile's own reading, odd layouts, damage."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bimodal_cl.data import index_shard
from bimodal_cl.data.shards.index import ShardIndex, split_captions
from bimodal_cl.errors import UserError
from tests.test_data.tiny_shards import Member, write_tar

NAMES = st.text("abcäß.- 字", min_size=1, max_size=150).map(lambda name: "x" + name)


def read_row(path: Path, index: ShardIndex, row: int) -> tuple[bytes, list[str]]:
    """A row's image and captions from the places that its index gives."""
    data = path.read_bytes()
    places = [(index.image_offset[row], index.image_size[row]), (index.text_offset[row], index.text_size[row])]
    image, text = (data[offset : offset + size] if offset >= 0 else b"" for offset, size in places)
    return image, split_captions(text, index.captions)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    samples=st.lists(
        st.tuples(NAMES, st.binary(max_size=1500), st.lists(st.sampled_from(["a dog", "  ", "", "über"]), max_size=4)),
        max_size=6,
        unique_by=lambda sample: sample[0],
    ),
    format=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_rows_are_what_tarfile_reads(tmp_path: Path, samples: list, format: int) -> None:
    members: list[Member] = []
    for name, image, lines in samples:
        members += [(f"{name}.JPG", image), (f"{name}.txt", "\n".join(lines).encode()), (f"{name}.json", b"{}")]
    path = tmp_path / "s.tar"
    write_tar(path, members, format)
    index = index_shard(path)
    assert index.keys == [name for name, _, _ in samples]
    assert index.image_ext == [".jpg"] * len(samples)
    with tarfile.open(path) as tar:
        for row, (name, image, lines) in enumerate(samples):
            member = tar.getmember(f"{name}.JPG")
            assert (member.offset_data, member.size) == (index.image_offset[row], index.image_size[row])
            captions = [line.strip() for line in lines if line.strip()]
            assert read_row(path, index, row) == (image, captions)
            assert index.caption_count[row] == len(captions)


def test_ustar_prefixes_folders_and_leading_dots(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    deep = "d" * 90 + "/" + "e" * 60
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, kind in (
            ("folder", tarfile.DIRTYPE),
            (f"{deep}/0.png", tarfile.REGTYPE),
            ("./1.png", tarfile.REGTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type = kind
            tar.addfile(info)
    index = index_shard(path)
    assert index.keys == [f"{deep}/0", "1"]
    assert index.text_offset.tolist() == [-1, -1]
    assert index.caption_count.tolist() == [0, 0]


def test_what_is_and_is_not_a_row(tmp_path: Path) -> None:
    members = [
        ("._a.jpg", b"resource fork"),
        ("a.txt", b"one\n\n two \r\nthree"),
        ("a.jpg", b"A"),
        ("only.txt", b"no image"),
        ("b.c.webp", b"dotted"),
        ("b.c.txt", b""),
        ("twice.png", b"1"),
        ("twice.txt", b"first"),
        ("twice.png", b"2"),
        ("twice.txt", b"second"),
        ("both.jpg", b"J"),
        ("both.png", b"P"),
        ("README", b""),
        ("last.jpeg", b""),
    ]
    write_tar(tmp_path / "s.tar", members)
    index = index_shard(tmp_path / "s.tar")
    assert index.keys == ["a", "b.c", "twice", "twice", "both", "last"]
    assert index.image_ext == [".jpg", ".webp", ".png", ".png", ".jpg", ".jpeg"]
    assert index.caption_count.tolist() == [3, 0, 1, 1, 0, 0]
    assert [read_row(tmp_path / "s.tar", index, row) for row in range(4)] == [
        (b"A", ["one", "two", "three"]),
        (b"dotted", []),
        (b"1", ["first"]),
        (b"2", ["second"]),
    ]
    whole = index_shard(tmp_path / "s.tar", "whole")
    assert whole.caption_count.tolist() == [1, 0, 1, 1, 0, 0]


def test_a_name_that_is_not_utf8_can_be_printed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        tar.addfile(tarfile.TarInfo("café.jpg"))
    (key,) = index_shard(tmp_path / "s.tar").keys
    assert key == "caf\\xe9"
    key.encode()


def test_captions_of_a_text() -> None:
    text = "\ufeff a cat \n\n\tzwei Hunde\r\n".encode()
    assert split_captions(text, "lines") == ["a cat", "zwei Hunde"]
    assert split_captions(text, "whole") == ["a cat \n\n\tzwei Hunde"]
    assert split_captions(b"caf\xe9\n\xff\n", "lines") == ["caf\ufffd", "\ufffd"]
    for blank in (b"", b" \n\r\n\t"):
        assert split_captions(blank, "lines") == split_captions(blank, "whole") == []


@pytest.mark.parametrize("length", [3, 700, 1025, 2047, 3500])
def test_a_truncated_shard_is_refused_by_name(tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.tar"
    write_tar(path, [("a.jpg", bytes(1000)), ("b.jpg", bytes(2000))])
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"cut\.tar: truncated.*byte \d+") as error:
        index_shard(path)
    assert "\n" not in str(error.value)


def test_garbage_is_refused_by_name_and_place(tmp_path: Path) -> None:
    path = tmp_path / "odd.tar"
    path.write_bytes(np.random.default_rng(0).bytes(20_000))
    with pytest.raises(UserError, match=r"odd\.tar: no tar header at byte 0: garbage"):
        index_shard(path)
    write_tar(path, [("a.jpg", bytes(1000)), ("b.jpg", bytes(2000))])
    damaged = bytearray(path.read_bytes())
    damaged[1536 + 3] ^= 0x40  # a letter of the second header's name
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"odd\.tar: no tar header at byte 1536 \(wrong checksum\)"):
        index_shard(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"odd\.tar: is empty"):
        index_shard(path)
    with pytest.raises(UserError, match=r"gone\.tar: cannot be opened: No such file"):
        index_shard(tmp_path / "gone.tar")
    with pytest.raises(UserError, match="captions 'line'; did you mean 'lines'"):
        index_shard(path, "line")  # type: ignore[arg-type]
