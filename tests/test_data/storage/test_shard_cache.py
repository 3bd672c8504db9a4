"""The cache of shards: entries are whole or absent, and never above its limit."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from bimodal_cl.data.storage import cache as cache_module
from bimodal_cl.data.storage.cache import ShardCache, version_time
from bimodal_cl.data.storage.shard_file import RangeFile
from bimodal_cl.data.storage.storage import Storage
from bimodal_cl.errors import UserError
from tests.test_data.storage.sources.memory_shards import SIZE, location, names, touch


def test_the_least_recently_used_make_room(tmp_path: Path, memory: Any) -> None:
    storage = Storage(tmp_path, cache_bytes=3 * SIZE + 1)
    for number in (0, 1, 2, 0, 3, 0, 4):
        touch(storage, number)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3 * SIZE + 1
    assert names(tmp_path) == ["0.tar.shard", "3.tar.shard", "4.tar.shard"]


def test_what_is_open_stays_and_the_rest_is_read_by_ranges(tmp_path: Path, memory: Any) -> None:
    storage = Storage(tmp_path, cache_bytes=2 * SIZE)
    held = [storage.open(location(number), SIZE) for number in (0, 1)]
    ranged = storage.open(location(2), SIZE)
    assert isinstance(ranged, RangeFile) and ranged.read(995, 5) == bytes([2]) * 5
    assert names(tmp_path) == ["0.tar.shard", "1.tar.shard"]
    held[0].close()
    touch(storage, 2)
    assert names(tmp_path) == ["1.tar.shard", "2.tar.shard"]
    assert held[1].read(0, 3) == bytes([1]) * 3


def test_nothing_is_evicted_for_what_cannot_fit_anyway(tmp_path: Path, memory: Any) -> None:
    storage = Storage(tmp_path, cache_bytes=2 * SIZE)
    touch(storage, 0)
    held = storage.open(location(1), SIZE)
    memory.pipe_file("/shards/large.tar", bytes(2 * SIZE))
    memory.pipe_file("/shards/huge.tar", bytes(2 * SIZE + 1))
    assert isinstance(storage.open("memory://shards/large.tar", 2 * SIZE), RangeFile)
    assert isinstance(storage.open("memory://shards/huge.tar", 2 * SIZE + 1), RangeFile)
    assert names(tmp_path) == ["0.tar.shard", "1.tar.shard"]
    held.close()


def test_files_of_others_in_the_folder_are_left_alone(tmp_path: Path, memory: Any) -> None:
    (tmp_path / "mine.tar.shard").write_bytes(bytes(5000))
    storage = Storage(tmp_path, cache_bytes=SIZE)
    touch(storage, 0)
    touch(storage, 1)
    assert (tmp_path / "mine.tar.shard").stat().st_size == 5000 and len(list(tmp_path.glob("*-1.tar.shard"))) == 1


def test_a_copy_of_another_size_is_replaced(tmp_path: Path, memory: Any) -> None:
    storage = Storage(tmp_path)
    touch(storage, 3)
    memory.pipe_file("/shards/3.tar", b"longer" * SIZE)
    file = storage.open(location(3), 6 * SIZE)
    assert file.read(0, 6) == b"longer" and names(tmp_path) == ["3.tar.shard"]
    with pytest.raises(UserError, match=r"3\.tar: holds 6000 bytes but the manifest says 1000"):
        storage.open(location(3), SIZE)
    file.close()


def test_a_copy_that_takes_the_place_of_another_keeps_its_own_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ShardCache(tmp_path, 10**6)

    def fill(version: str) -> None:
        def download(write: Any) -> str:
            write(0, version.encode())
            return version

        descriptor = cache.add("memory://x.tar", 3, download, lambda: None)
        assert descriptor is None

    fill("old")
    real = version_time

    def replaced_meanwhile(version: str) -> int:
        monkeypatch.setattr(cache_module, "version_time", real)
        fill("new")
        return real(version)

    monkeypatch.setattr(cache_module, "version_time", replaced_meanwhile)
    descriptor = cache.open("memory://x.tar", 3, "old")
    assert descriptor is not None and os.pread(descriptor, 3, 0) == b"old"
    os.close(descriptor)
    assert cache.open("memory://x.tar", 3, "old") is None
    descriptor = cache.open("memory://x.tar", 3, "new")
    assert descriptor is not None and os.pread(descriptor, 3, 0) == b"new"
    os.close(descriptor)


def test_leftovers_of_killed_downloads_are_evicted_first(tmp_path: Path, memory: Any) -> None:
    storage = Storage(tmp_path, cache_bytes=2 * SIZE)
    touch(storage, 0)
    (tmp_path / f"{'0' * 32}-gone.tar.part").write_bytes(bytes(SIZE))
    touch(storage, 1)
    assert names(tmp_path) == ["0.tar.shard", "1.tar.shard"]


def test_a_full_disk_means_ranges(tmp_path: Path, memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    storage = Storage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(cache_module.os, "pwrite", full)
        file = storage.open(location(4), SIZE)
        assert isinstance(file, RangeFile) and file.read(1, 3) == bytes([4]) * 3
        with pytest.raises(UserError, match=r"4\.tar: the disk of .* is full"):
            storage.local_copy(location(4))
    assert names(tmp_path) == []
    monkeypatch.setattr(cache_module, "FREE_BYTES", 2**62)  # not even begun where too little is free
    assert isinstance(storage.open(location(4), SIZE), RangeFile)
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, memory: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/cache: cannot hold the cache of shards: Not a directory; .*cache_dir"):
        Storage(tmp_path / "file" / "cache").open(location(0), SIZE)


def test_a_failed_download_leaves_nothing(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 10**6)

    def fail(write: Any) -> str:
        write(0, b"half")
        raise OSError("the server failed")

    with pytest.raises(OSError, match="the server failed"):
        cache.add("memory://x.tar", 100, fail, lambda: None)
    assert names(tmp_path) == []


def test_of_unknown_size_it_grows_within_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_STEP", 100)
    storage = Storage(tmp_path, cache_bytes=5000, allow_pipe=True)
    assert storage.local_copy("pipe:head -c 3000 /dev/zero").read_bytes() == bytes(3000)
    with pytest.raises(UserError, match=r"no space for \d+ bytes: too much of the 5000 of .* is in use"):
        storage.local_copy("pipe:head -c 100000 /dev/zero")
    assert [path.stat().st_size for path in tmp_path.glob("*.shard")] in ([3000], [])
    assert not list(tmp_path.glob("*.part"))


def test_versions_are_times_of_whole_microseconds(tmp_path: Path) -> None:
    times = [version_time(f"version {n}") for n in range(200)]
    assert len(set(times)) == 200 and all(time % 1000 == 0 for time in times)
    path = tmp_path / "x"
    path.touch()
    os.utime(path, ns=(0, times[0]))
    assert path.stat().st_mtime_ns == times[0]
