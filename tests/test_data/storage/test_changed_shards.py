"""A shard that changed at its source since it was indexed is refused by name, also where it has kept its size."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from bimodal_cl.data import Manifest
from bimodal_cl.data.shards.reader import Row, RowReader
from bimodal_cl.data.shards.row_table import load_table_header
from bimodal_cl.data.storage.sources import file_system as file_system_module
from bimodal_cl.data.storage.storage import Storage
from bimodal_cl.errors import UserError
from data_prep.indexing import shard_description
from data_prep.indexing.index import index_shards
from tests.test_data.shard_server import ShardServer

REFUSED = (
    r"^shard (http|memory)://.*/000\.tar: it changed: its server calls it version .*, and it was indexed as .*; "
    r"`bimodal-prep index SHARDS --to FOLDER --overwrite` indexes it as it is now$"
)


@pytest.fixture
def folder(write_shards: Callable[..., Path]) -> Path:
    return write_shards([3, 5])


@pytest.fixture
def memory(folder: Path) -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    for path in folder.glob("*.tar"):
        files.pipe_file(f"/changing/{path.name}", path.read_bytes())
    yield files
    files.rm("/changing", recursive=True)


def index(urls: str, tmp_path: Path) -> Manifest:
    return index_shards(
        [urls], tmp_path / "index", "lines", num_workers=1, storage=Storage(tmp_path / "index-cache")
    ).manifest


def other_bytes(path: Path) -> bytes:
    """Those of a shard whose captions are others, of the same size."""
    data = path.read_bytes()
    changed = data.replace(b"-0", b"-X")
    assert changed != data and len(changed) == len(data)
    return changed


def change(path: Path) -> None:
    modified = path.stat().st_mtime_ns + 10**9
    path.write_bytes(other_bytes(path))
    os.utime(path, ns=(modified, modified))


def rows_of(manifest: Manifest, storage: Storage, prefetch: bool = True) -> list[Row]:
    reader = RowReader(manifest, storage)
    try:
        if prefetch:
            reader.prefetch(range(8))
        return [reader.read(number) for number in range(8)]
    finally:
        reader.close()


@pytest.mark.parametrize("cache_bytes", [0, 10**9])
@pytest.mark.parametrize("prefetch", [True, False])
def test_a_shard_of_the_same_size_is_refused(
    folder: Path, server: ShardServer, tmp_path: Path, cache_bytes: int, prefetch: bool
) -> None:
    manifest = index(f"{server.url}/{{000..001}}.tar", tmp_path)
    expected = rows_of(manifest, Storage(tmp_path / "before", cache_bytes))
    change(folder / "000.tar")
    with pytest.raises(UserError, match=REFUSED):
        rows_of(manifest, Storage(tmp_path / "after", cache_bytes), prefetch)
    # A copy of what was indexed is as good as ever.
    assert rows_of(manifest, Storage(tmp_path / "index-cache"), prefetch) == expected


@pytest.mark.parametrize("cache_bytes", [0, 10**9])
def test_so_it_is_on_a_file_system(folder: Path, memory: Any, tmp_path: Path, cache_bytes: int) -> None:
    manifest = index("memory://changing/*.tar", tmp_path)
    memory.pipe_file("/changing/000.tar", other_bytes(folder / "000.tar"))
    with pytest.raises(UserError, match=REFUSED):
        rows_of(manifest, Storage(tmp_path / "after", cache_bytes))


def test_a_copy_of_another_version_is_not_taken(folder: Path, server: ShardServer, tmp_path: Path) -> None:
    first = index(f"{server.url}/{{000..001}}.tar", tmp_path)
    before = (folder / "000.tar").read_bytes(), (folder / "000.tar").stat().st_mtime_ns
    change(folder / "000.tar")
    newer = Storage(tmp_path / "newer")
    newer.local_copy(first.location(0))
    with pytest.raises(UserError, match=REFUSED):
        rows_of(first, newer)
    (folder / "000.tar").write_bytes(before[0])
    os.utime(folder / "000.tar", ns=(before[1], before[1]))
    assert rows_of(first, newer) == rows_of(Manifest.load(folder), Storage())


def test_a_change_while_ranges_are_read_is_noticed(folder: Path, server: ShardServer, tmp_path: Path) -> None:
    manifest = index(f"{server.url}/{{000..001}}.tar", tmp_path)
    reader = RowReader(manifest, Storage(tmp_path / "cache", 0))
    reader.read(0)
    change(folder / "000.tar")
    with pytest.raises(UserError, match=REFUSED):
        reader.read(1)
    reader.close()


def test_a_server_that_says_its_versions_no_longer_is_believed(
    folder: Path, server: ShardServer, tmp_path: Path
) -> None:
    manifest = index(f"{server.url}/{{000..001}}.tar", tmp_path)
    expected = rows_of(Manifest.load(folder), Storage())
    server.tagged = False
    for cache_bytes in (0, 10**9):
        assert rows_of(manifest, Storage(tmp_path / "cache", cache_bytes)) == expected


def test_an_index_of_it_makes_it_good_again(folder: Path, server: ShardServer, tmp_path: Path) -> None:
    urls = f"{server.url}/{{000..001}}.tar"
    index(urls, tmp_path)
    change(folder / "000.tar")
    manifest = index(urls, tmp_path)
    assert rows_of(manifest, Storage(tmp_path / "cache")) == rows_of(Manifest.load(folder), Storage())


def test_a_shard_that_changes_between_question_and_download_gets_the_version_of_its_bytes(
    folder: Path, server: ShardServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reuse = shard_description._reuse

    def change_meanwhile(name: str, *args: Any) -> Any:
        if name.endswith("001.tar"):
            change(folder / "001.tar")
        return reuse(name, *args)

    monkeypatch.setattr(shard_description, "_reuse", change_meanwhile)
    storage = Storage(tmp_path / "cache")
    urls = f"{server.url}/{{000..001}}.tar"
    manifest = index_shards([urls], tmp_path / "index", "lines", num_workers=1, storage=storage).manifest
    url = manifest.location(1)
    header = load_table_header(manifest.folder, url)
    assert header is not None and header.version == storage.ask(url).version
    assert rows_of(manifest, Storage(tmp_path / "other")) == rows_of(Manifest.load(folder), Storage())


def test_pieces_of_two_versions_are_never_put_together(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_system_module, "CHUNK", 10)
    memory.pipe_file("/changing/x.tar", b"a" * 100)
    real, asked = memory.cat_file, [0]

    def change_meanwhile(path: str, **options: Any) -> bytes:
        asked[0] += 1
        if asked[0] == 5:
            memory.pipe_file("/changing/x.tar", b"b" * 100)
        return bytes(real(path, **options))

    monkeypatch.setattr(memory, "cat_file", change_meanwhile)
    file = Storage(tmp_path).open("memory://changing/x.tar", 100)
    assert file.read(0, 100) == b"b" * 100
    file.close()
