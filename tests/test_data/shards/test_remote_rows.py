"""Rows from elsewhere are the rows from disk: same bytes, captions and order, whatever the server does."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import torch

from bimodal_cl.data import Manifest, open_stream
from bimodal_cl.data.shards import open_shards as open_shards_module
from bimodal_cl.data.shards import range_requests as range_requests_module
from bimodal_cl.data.shards.reader import Row, RowReader
from bimodal_cl.data.storage.storage import Storage
from bimodal_cl.errors import UserError
from tests.test_data.remote_shards import write_remote_manifest
from tests.test_data.shard_server import ShardServer
from tests.test_data.tiny_shards import encode_image, write_manifest, write_tar

SIZES = [5, 1, 17, 9, 1, 12]  # 45 images


@pytest.fixture
def folder(write_shards: Callable[..., Path]) -> Path:
    return write_shards(SIZES, {7: "", 20: b"no image"})


def read_all(reader: RowReader, batch: int = 9) -> list[Row]:
    """All rows, in an order that jumps between shards, prefetched by batches."""
    ids = random.Random(0).sample(range(45), 45)
    rows = {}
    for first in range(0, 45, batch):
        reader.prefetch(ids[first : first + batch])
        for image_id in ids[first : first + batch]:
            rows[image_id] = reader.read(image_id)
    reader.close()
    return [rows[image_id] for image_id in range(45)]


@pytest.mark.parametrize("cache_bytes", [0, 40_000, 10**9])
@pytest.mark.parametrize("fault", ["", "truncate", "drop", "503"])
def test_rows_are_those_of_the_disk(
    folder: Path, server: ShardServer, tmp_path: Path, cache_bytes: int, fault: str
) -> None:
    manifest = write_remote_manifest(folder, tmp_path / "remote", server.url)
    server.fault = lambda number: fault if number % 3 == 0 else ""
    storage = Storage(tmp_path / "cache", cache_bytes, first_delay=0.001)
    expected = read_all(RowReader(Manifest.load(folder)))
    assert read_all(RowReader(manifest, storage)) == expected
    whole = sum(
        asked is not None and asked.startswith("bytes=0-") and asked != "bytes=0-0" for _, asked in server.asked
    )
    assert whole >= len(SIZES) if cache_bytes == 10**9 else whole < len(server.asked)


def test_rows_come_from_memory_too(folder: Path, tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    for path in folder.glob("*.tar"):
        files.pipe_file(f"/rows/{path.name}", path.read_bytes())
    manifest = write_remote_manifest(folder, tmp_path / "remote", "memory://rows")
    expected = read_all(RowReader(Manifest.load(folder)))
    for cache_bytes in (0, 10**9):
        assert read_all(RowReader(manifest, Storage(tmp_path / "cache", cache_bytes))) == expected
    files.rm("/rows", recursive=True)


def test_without_row_tables_copies_are_indexed(folder: Path, server: ShardServer, tmp_path: Path) -> None:
    manifest = write_remote_manifest(folder, tmp_path / "remote", server.url, tables=False)
    reader = RowReader(manifest, Storage(tmp_path / "cache"))
    assert read_all(reader) == read_all(RowReader(Manifest.load(folder)))
    reader = RowReader(manifest, Storage(tmp_path / "other", cache_bytes=0))
    with pytest.raises(UserError, match=r"002\.tar: does not fit into the cache, and .* has no row table of it"):
        reader.read(10)


def test_neighbours_are_fetched_by_one_request(folder: Path, server: ShardServer, tmp_path: Path) -> None:
    manifest = write_remote_manifest(folder, tmp_path / "remote", server.url)
    reader = RowReader(manifest, Storage(tmp_path / "cache", cache_bytes=0))
    ids = list(range(6, 23))  # all of shard 2
    reader.prefetch(ids)
    assert len(server.asked) == 2  # its size, then its rows
    rows = [reader.read(image_id) for image_id in ids]
    assert len(server.asked) == 2
    local = RowReader(Manifest.load(folder))
    assert rows == [local.read(image_id) for image_id in ids]
    reader.read(8)  # a second time, so a request of its own, for image and text together
    assert len(server.asked) == 3
    reader.close()
    local.close()


def test_requests_are_bounded_and_what_is_fetched_ahead_too(
    folder: Path, server: ShardServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(range_requests_module, "MAX_REQUEST", 3000)
    monkeypatch.setattr(range_requests_module, "MAX_AHEAD", 2500)
    manifest = write_remote_manifest(folder, tmp_path / "remote", server.url)
    reader = RowReader(manifest, Storage(tmp_path / "cache", cache_bytes=0))
    expected = RowReader(Manifest.load(folder))
    reader.prefetch(range(6, 23))
    spans = [tuple(map(int, str(asked).removeprefix("bytes=").split("-"))) for _, asked in server.asked[1:]]
    assert len(spans) > 3 and all(last - first < 3000 for first, last in spans)
    assert [reader.read(n) for n in range(6, 23)] == [expected.read(n) for n in range(6, 23)]
    assert len(server.asked) > 1 + len(spans)  # those beyond the limit were fetched again
    reader.close()
    expected.close()


def test_idle_copies_are_closed_so_that_others_find_room(
    folder: Path, server: ShardServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_remote_manifest(folder, tmp_path / "remote", server.url)
    limit = max(shard.bytes for shard in manifest.shards)
    monkeypatch.setattr(open_shards_module, "IDLE_SECONDS", -1.0)
    monkeypatch.setattr(open_shards_module, "RANGED_SECONDS", -1.0)
    reader = RowReader(manifest, Storage(tmp_path / "cache", limit))
    for image_id, name in ((6, "002"), (23, "003"), (33, "005")):
        reader.prefetch([image_id])
        reader.read(image_id)
        assert [path.name[33:36] for path in (tmp_path / "cache").glob("*.shard")] == [name]
    reader.close()


def test_a_shard_of_another_size_is_refused_by_name(folder: Path, server: ShardServer, tmp_path: Path) -> None:
    manifest = write_remote_manifest(folder, tmp_path / "remote", server.url)
    with (folder / "003.tar").open("ab") as file:
        file.write(bytes(512))
    for cache_bytes in (0, 10**9):
        reader = RowReader(manifest, Storage(tmp_path / "cache", cache_bytes))
        with pytest.raises(UserError, match=r"003\.tar: holds \d+ bytes but the manifest says \d+: it is changed"):
            reader.prefetch(range(45))
        with pytest.raises(UserError, match=r"003\.tar: holds \d+ bytes but the manifest says \d+"):
            reader.read(25)
        reader.close()


def test_rows_say_what_is_wrong_with_their_captions(tmp_path: Path) -> None:
    image = encode_image(1)
    folder = tmp_path / "odd"
    members = [
        ("a.png", image),
        ("b.png", image),
        ("b.txt", b" \n "),
        ("c.JPEG", image),
        ("d.png", image),
        ("d.txt", "caf\u00e9".encode("latin-1")),
        ("c.txt", b"too late"),
        ("e.x.webp", image),
        ("e.x.txt", "caf\u00e9\ntwo".encode()),
        ("f.png", b""),
        ("f.txt", b"nothing to see"),
    ]
    write_tar(folder / "0.tar", members)
    write_manifest(folder, [("0.tar", 6, 4)])
    reader = RowReader(Manifest.load(folder))
    rows = [reader.read(n) for n in range(6)]
    assert [row.caption_fault for row in rows] == ["no_caption", "empty_caption", "not_adjacent", "", "", ""]
    assert [row.not_utf8 for row in rows] == [False, False, False, True, False, False]
    assert [row.extension for row in rows] == [".png", ".png", ".jpeg", ".png", ".webp", ".png"]
    assert [row.captions for row in rows] == [[], [], [], ["caf\ufffd"], ["caf\u00e9", "two"], ["nothing to see"]]
    assert [row.first_text_id for row in rows] == [0, 0, 0, 0, 1, 3]
    assert [row.image for row in rows] == [image] * 5 + [b""]
    assert [reader.describe(n)[1] for n in range(6)] == ["a", "b", "c", "d", "e.x", "f"]
    reader.close()


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("cache_bytes", [0, 10**9])
def test_an_epoch_over_a_server_that_truncates_every_third_response_is_the_epoch_from_disk(
    folder: Path, server: ShardServer, tmp_path: Path, num_workers: int, cache_bytes: int
) -> None:
    manifest = write_remote_manifest(folder, tmp_path / "remote", server.url)
    server.fault = lambda number: "truncate" if number % 3 == 0 else ""
    options = {"batch_size": 4, "image_size": 6, "seed": 3, "shuffle_window": 8, "max_bad_fraction": 0.5}
    expected = open_stream(folder, **options)
    storage = Storage(tmp_path / "cache", cache_bytes, first_delay=0.001)
    stream = open_stream(manifest, num_workers=num_workers, storage=storage, **options)
    for ours, theirs in zip(stream, expected, strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.image_ids, theirs.image_ids) and torch.equal(ours.text_ids, theirs.text_ids)
        assert ours.texts == theirs.texts
    assert stream.report().by_kind == expected.report().by_kind  # the two planted faults and no others
    assert stream.report().by_kind.total() == 2
    assert sum(number % 3 == 0 for number in range(1, len(server.asked) + 1)) >= 4  # that many were truncated
