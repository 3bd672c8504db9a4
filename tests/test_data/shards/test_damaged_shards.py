"""Damaged shards give the whole samples before the damage where that is wanted; oddities of names are counted."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bimodal_cl.data import index_shard
from bimodal_cl.errors import UserError
from tests.test_data.tiny_shards import Member, write_tar

SIZES = (3, 600, 1500)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Six samples of an image, then a text."""
    members = [(f"{n}.{ext}", b"x" * SIZES[(n + len(ext)) % 3]) for n in range(6) for ext in ("jpeg", "txt")]
    write_tar(tmp_path / "s.tar", members)
    return tmp_path / "s.tar"


def ends_of_texts(path: Path) -> list[int]:
    """The byte after the last block of each text."""
    with tarfile.open(path) as tar:
        return [info.offset_data + -(-info.size // 512) * 512 for info in tar if info.name.endswith(".txt")]


def test_whole_samples_before_a_cut_are_kept(shard: Path) -> None:
    whole = shard.read_bytes()
    ends = ends_of_texts(shard)
    complete = index_shard(shard)
    for length in [0, 1, *range(100, ends[-1], 412), *(end + more for end in ends[:-1] for more in (-1, 1))]:
        shard.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"s\.tar: (truncated|is empty)"):
            index_shard(shard)
        kept = index_shard(shard, "lines", "keep")
        assert kept.keys == complete.keys[: sum(end <= length for end in ends)]
        assert kept.image_offset.tolist() == complete.image_offset[: len(kept)].tolist()
        assert kept.caption_count.tolist() == [1] * len(kept)
        assert kept.counts == {"truncated": 1} and ("truncated" in kept.damage or length == 0)


def test_a_tar_without_its_end_is_whole(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[: ends_of_texts(shard)[-1]])
    index = index_shard(shard)
    assert len(index) == 6 and not index.damage and not index.counts


@pytest.mark.parametrize("what", [b"\xff" * 512, b"<html>" * 86, bytes(range(256)) * 2])
def test_whole_samples_before_garbage_are_kept(shard: Path, what: bytes) -> None:
    data = bytearray(shard.read_bytes())
    with tarfile.open(shard) as tar:
        headers = [info.offset for info in tar]
    for number, place in enumerate(headers):
        damaged = data.copy()
        damaged[place : place + 512] = what[:512]
        shard.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"no tar header at byte {place}"):
            index_shard(shard)
        kept = index_shard(shard, damaged="keep")
        assert kept.keys == [str(n) for n in range(number // 2)]
        assert kept.counts == {"garbage": 1}


def test_the_first_of_two_damages_counts(shard: Path) -> None:
    data = bytearray(shard.read_bytes())
    with tarfile.open(shard) as tar:
        second = tar.getmember("1.jpeg").offset
    data[second + 5] ^= 1  # its checksum is wrong, its size is right: the walk goes on, to the cut
    shard.write_bytes(data[: ends_of_texts(shard)[-1] - 700])
    with pytest.raises(UserError, match=rf"byte {second} \(wrong checksum\)"):
        index_shard(shard)
    assert index_shard(shard, damaged="keep").keys == ["0"]


def test_what_headers_tell_is_counted(tmp_path: Path) -> None:
    members: list[Member] = [
        ("far.jpg", b"1"),
        ("good.jpg", b"1"),
        ("good.txt", b"good"),
        ("far.txt", b"its image stands elsewhere"),
        ("twice.jpg", b"1"),
        ("twice.txt", b"one"),
        ("twice.jpg", b"1"),
        ("twice.txt", b"two"),
        ("dotted.key.png", b""),
        ("folder.d/plain.png", b"1"),
        ("folder.d/plain.txt", b" \n"),
        ("alone.txt", b"no image"),
        ("alone.json", b"{}"),
        ("json.json", b"{}"),
        ("good.txt", b"a second text of an image that has one"),
    ]
    write_tar(tmp_path / "s.tar", members)
    index = index_shard(tmp_path / "s.tar")
    assert index.keys == ["far", "good", "twice", "twice", "dotted.key", "folder.d/plain"]
    assert index.text_offset[[0, 4]].tolist() == [-2, -1]
    assert index.caption_count.tolist() == [0, 1, 1, 1, 0, 0]
    assert index.counts == {
        "dotted_key": 1,
        "duplicate_key": 1,
        "empty_caption": 1,
        "no_caption": 1,
        "no_image": 2,
        "not_adjacent": 1,
        "zero_bytes": 1,
    }


def test_names_that_are_not_utf8_are_counted(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for name in ("café.jpg", "plain.jpg", "caf\\xe9.jpg"):
            tar.addfile(tarfile.TarInfo(name))
    index = index_shard(tmp_path / "s.tar")
    assert index.keys == ["caf\\xe9", "plain", "caf\\xe9"]
    assert index.counts["name_not_utf8"] == 1


@pytest.mark.parametrize(
    "record", [b"9" * 5000 + b" path=x\n", b"8", b"9" * 21 + b" path=x\n", b"5012 size=" + b"9" * 5001 + b"\n"]
)
def test_pax_numbers_of_thousands_of_digits_are_garbage(tmp_path: Path, record: bytes) -> None:
    good = tarfile.TarInfo("0.jpg")
    pax = tarfile.TarInfo("pax")
    pax.type, pax.size = tarfile.XHDTYPE, len(record)
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(good)
        tar.addfile(pax, io.BytesIO(record))
        tar.addfile(tarfile.TarInfo("1.jpg"))
    with pytest.raises(UserError, match=r"s\.tar: garbage in the pax header at byte 1024"):
        index_shard(tmp_path / "s.tar")


def test_one_endless_name_takes_little_memory(tmp_path: Path) -> None:
    """Names are compared side by side, each with the room of the longest."""
    long = "d/" * 10_000 + "long.key"
    names = [f"{n // 2:05d}.{('jpg', 'txt')[n % 2]}" for n in range(8000)]
    names[4000:4000] = [f"{long}.jpg", f"{long}.txt"]
    write_tar(tmp_path / "s.tar", [(name, b"x") for name in names])
    tracemalloc.start()
    index = index_shard(tmp_path / "s.tar")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert index.keys == [name[:-4] for name in names[::2]] and index.counts == {"dotted_key": 1}
    assert index.caption_count.tolist() == [1] * 4001
    assert peak < 120e6


def _nested() -> bytes:
    """A payload that is a tar itself, whose headers are none of the outer tar's."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("inner.jpg", "inner.txt"):
            tar.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


PAYLOADS = (b"", b"a caption", b"x" * 511, b"y" * 513, b"ustar\x0000" * 64, _nested(), bytes(20_000))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_many_small_members_are_what_tarfile_reads(tmp_path: Path, data: st.DataObject) -> None:
    """Hundreds of members, so that they are found by stretches, with every kind of header in between."""
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    format = data.draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    long_share, odd_share, float_times = draw.choice([0, 0, 0.01, 0.5]), draw.choice([0, 0.02]), draw.random() < 0.5
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w", format=format) as tar:
        for number in range(int(draw.integers(100, 1500))):
            prefix = "deep/" * 25 if draw.random() < long_share else draw.choice(["", "./", "ü" * 3])
            info = tarfile.TarInfo(f"{prefix}{number // 2:06d}.{('jpg', 'txt')[number % 2]}")
            if draw.random() < odd_share:
                info.type, info.linkname = [(tarfile.DIRTYPE, ""), (tarfile.SYMTYPE, "x")][int(draw.integers(2))]
                tar.addfile(info)
                continue
            if format == tarfile.PAX_FORMAT and float_times:
                info.mtime = 1.5  # a pax header for each member, as webdataset's writer leaves
            payload = PAYLOADS[draw.choice(len(PAYLOADS), p=[0.1, 0.6, 0.1, 0.1, 0.04, 0.04, 0.02])]
            info.size = len(payload)
            tar.addfile(info, io.BytesIO(payload))
    expected: dict[str, list[tuple[int, int]]] = {"jpg": [], "txt": []}
    keys = []
    with tarfile.open(path) as tar:
        for info in tar:
            if info.isfile():
                stem, _, extension = info.name.removeprefix("./").rpartition(".")
                expected[extension].append((info.offset_data, info.size))
                keys += [stem] if extension == "jpg" else []
    index = index_shard(path)
    assert index.keys == keys
    assert list(zip(index.image_offset.tolist(), index.image_size.tolist(), strict=True)) == expected["jpg"]
    found = index.text_offset >= 0
    texts = list(zip(index.text_offset[found].tolist(), index.text_size[found].tolist(), strict=True))
    assert set(texts) <= set(expected["txt"])
    assert len(expected["txt"]) - len(texts) == index.counts.get("no_image", 0) + index.counts.get("not_adjacent", 0)


@pytest.mark.parametrize("number", [40, 777, 2999])
def test_one_wrong_byte_among_thousands_of_headers(tmp_path: Path, number: int) -> None:
    path = tmp_path / "s.tar"
    write_tar(path, [(f"{n // 2:04d}.{('png', 'txt')[n % 2]}", b"a caption") for n in range(3000)])
    data = bytearray(path.read_bytes())
    place = number * 1024  # of a header: each member has one block
    for inside, reason in ((2, "wrong checksum"), (130, "garbage, or not a tar"), (258, "wrong checksum")):
        damaged = data.copy()
        damaged[place + inside] ^= 0x48  # of the name, of the size, of the magic
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"no tar header at byte {place}\b.*{reason}"):
            index_shard(path)
        assert len(index_shard(path, damaged="keep")) == number // 2
