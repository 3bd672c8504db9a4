"""Row tables: what the tar's headers say, or nothing at all where shard, manifest or table have changed."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bimodal_cl.data import Manifest, Shard, index_shard
from bimodal_cl.data.shards.reader import RowReader
from bimodal_cl.data.shards.row_table import (
    ROW_TYPE,
    RowTable,
    index_row_table,
    load_row_table,
    load_table_header,
    make_row_table,
    row_table_path,
    save_row_table,
)
from bimodal_cl.errors import UserError
from tests.test_data.tiny_shards import write_manifest, write_tar

COLUMNS = ("image_offset", "image_size", "text_offset", "text_size", "first_text_id", "image_ext")


@pytest.fixture
def manifest(write_shards: Callable[..., Path]) -> Manifest:
    """Two shards; rows 1 and 3 of all have no text."""
    manifest = Manifest.load(write_shards([3, 4], replace={1: "", 3: ""}))
    for number, shard in enumerate(manifest.shards):
        save_row_table(manifest.folder, shard, index_shard(Path(manifest.location(number))))
    return manifest


def columns_of(table: RowTable | None) -> list[list[int]]:
    assert table is not None
    return [getattr(table, column).tolist() for column in COLUMNS]


def table_path(manifest: Manifest, shard: int) -> Path:
    return row_table_path(manifest.folder, manifest.shards[shard].name)


def test_a_table_says_what_the_headers_say(manifest: Manifest) -> None:
    for shard in range(2):
        table = load_row_table(manifest, shard)
        index = index_shard(Path(manifest.location(shard)))
        assert table is not None and len(table) == len(index)
        for column in ("image_offset", "image_size", "text_offset", "text_size"):
            assert getattr(table, column).tolist() == getattr(index, column).tolist()
        assert [table.extension(row) for row in range(len(table))] == index.image_ext
        assert columns_of(table) == columns_of(make_row_table(index, int(manifest.text_offsets[shard])))
        assert columns_of(table) == columns_of(index_row_table(manifest, shard, Path(manifest.location(shard))))
    second = load_row_table(manifest, 1)
    assert second is not None and second.first_text_id.tolist() == [4, 4, 6, 9]
    header = load_table_header(manifest.folder, "000.tar")
    assert header is not None and header.shard == replace(manifest.shards[0], sha256=None)
    assert (header.captions, header.counts) == ("lines", {"empty_caption": 1})


def test_no_table_is_none(manifest: Manifest) -> None:
    table_path(manifest, 0).unlink()
    assert load_row_table(manifest, 0) is None and load_row_table(manifest, 1) is not None
    assert load_table_header(manifest.folder, "000.tar") is None


@pytest.mark.parametrize("change", [{"num_images": 2}, {"num_texts": 3}, {"bytes": 1}, {"name": "other.tar"}])
def test_a_table_at_odds_with_the_manifest_is_not_used(manifest: Manifest, change: dict[str, object]) -> None:
    shards = (replace(manifest.shards[0], **change), manifest.shards[1])
    assert load_row_table(replace(manifest, shards=shards), 0) is None


def test_a_table_of_the_other_mode_is_not_used(manifest: Manifest) -> None:
    assert load_row_table(replace(manifest, captions="whole"), 0) is None


def test_a_shard_written_again_makes_its_table_stale(manifest: Manifest) -> None:
    path = Path(manifest.location(0))
    times = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1_000_000))
    assert load_row_table(manifest, 0) is None
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert load_row_table(manifest, 0) is not None
    path.unlink()
    assert load_row_table(manifest, 0) is None


def _same_time(path: Path, data: bytes) -> None:
    times = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_damaged_tables_are_not_used(manifest: Manifest) -> None:
    path = table_path(manifest, 1)
    good = path.read_bytes()
    for place in (5, len(good) - 40, len(good) - 1):
        _same_time(path, good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        assert load_row_table(manifest, 1) is None
    for data in (b"", good[:-29], good[:-1], good + bytes(29), b"[]\n", b"{}\n", b'"x"\n', bytes(300), b"\xff\xfe\n"):
        _same_time(path, data)
        assert load_row_table(manifest, 1) is None
    head, _, rows = good.partition(b"\n")
    _same_time(path, json.dumps({**json.loads(head), "version": 2}).encode() + b"\n" + rows)
    assert load_row_table(manifest, 1) is None
    _same_time(path, good)
    assert load_row_table(manifest, 1) is not None


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled(manifest: Manifest, tmp_path: Path) -> None:
    data = pickle.dumps(_Bomb(tmp_path / "executed"))
    head, _, rows = table_path(manifest, 0).read_bytes().partition(b"\n")
    for content in (data, head + b"\n" + data, head + data + b"\n" + rows):
        _same_time(table_path(manifest, 0), content)
        assert load_row_table(manifest, 0) is None
    array = tmp_path / "array.npy"
    np.save(array, np.array([_Bomb(tmp_path / "executed")], dtype=object), allow_pickle=True)
    _same_time(table_path(manifest, 0), array.read_bytes())
    assert load_row_table(manifest, 0) is None
    assert not (tmp_path / "executed").exists()


def test_the_same_shard_gives_the_same_bytes_and_no_temporary_file_stays(manifest: Manifest) -> None:
    before = table_path(manifest, 0).read_bytes()
    path = Path(manifest.location(0))
    path.write_bytes(path.read_bytes())
    save_row_table(manifest.folder, manifest.shards[0], index_shard(path))
    assert table_path(manifest, 0).read_bytes() == before
    assert sorted(entry.name for entry in (manifest.folder / "rows").iterdir()) == ["000.tar.rows", "001.tar.rows"]


def test_names_that_are_no_file_names(manifest: Manifest) -> None:
    index = index_shard(Path(manifest.location(0)))
    url = "https://host/a/b.tar?signature=" + "x" * 300
    names = [url, url + "y", "s3://bucket/a.tar", "/data/a.tar", "deep/a.tar", "deep%2Fa.tar"]
    paths = [row_table_path(manifest.folder, name) for name in names]
    assert len(set(paths)) == len(names)
    assert all(path.parent == manifest.folder / "rows" and len(path.name.encode()) < 240 for path in paths)
    shard = Shard(url, 3, 4, manifest.shards[0].bytes)
    save_row_table(manifest.folder, shard, index, version="etag")
    assert columns_of(load_row_table(replace(manifest, shards=(shard,)), 0)) == columns_of(make_row_table(index))
    header, table = load_table_header(manifest.folder, url), load_row_table(replace(manifest, shards=(shard,)), 0)
    assert header is not None and header.version == "etag"
    assert table is not None and table.version == "etag"


def test_a_row_takes_the_memory_that_is_promised(manifest: Manifest) -> None:
    table = load_row_table(manifest, 1)
    assert table is not None
    size = ROW_TYPE.itemsize + table.first_text_id.itemsize
    for promise in (RowTable.__doc__, RowReader.__doc__):
        assert f"about {size} bytes" in " ".join((promise or "").split())


def test_members_of_four_gibibytes_have_no_table(manifest: Manifest) -> None:
    index = index_shard(Path(manifest.location(0)))
    large = replace(index, image_size=index.image_size + 2**32)
    table_path(manifest, 0).unlink()
    assert save_row_table(manifest.folder, manifest.shards[0], large) is None
    assert load_row_table(manifest, 0) is None
    with pytest.raises(OverflowError, match="4 GiB"):
        make_row_table(large)


def test_a_shard_of_other_rows_than_the_manifest_says_is_refused(manifest: Manifest) -> None:
    shards = (replace(manifest.shards[0], num_images=2), manifest.shards[1])
    with pytest.raises(UserError, match=r"000\.tar: holds 3 images and 4 captions but the manifest says 2 and 4; `bim"):
        index_row_table(replace(manifest, shards=shards), 0, Path(manifest.location(0)))


def test_an_accepted_damage_gives_the_rows_before_it(tmp_path: Path) -> None:
    members = [(f"{n}.{ext}", b"some bytes") for n in range(3) for ext in ("png", "txt")]
    write_tar(tmp_path / "a.tar", members)
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(data[: 4 * 1024 + 700])  # inside the third image
    write_manifest(tmp_path, [("a.tar", 2, 2)])
    path = tmp_path / "manifest.json"
    with pytest.raises(UserError, match="truncated"):
        index_row_table(Manifest.load(tmp_path), 0, tmp_path / "a.tar")
    path.write_text(json.dumps({**json.loads(path.read_text()), "faults": {"truncated": 1}}))
    assert len(index_row_table(Manifest.load(tmp_path), 0, tmp_path / "a.tar")) == 2
