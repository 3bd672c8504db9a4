"""The cache of shards: whole or absent, never above its limit, one download for all processes."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest

from bimodal_cl.data.storage import cache as cache_module
from bimodal_cl.data.storage import storage as storage_module
from bimodal_cl.data.storage.cache import ShardCache, version_time
from bimodal_cl.data.storage.concurrency import run_concurrently
from bimodal_cl.data.storage.shard_file import LocalFile, RangeFile
from bimodal_cl.data.storage.storage import Storage, default_cache_dir
from bimodal_cl.errors import ServerFailed, UserError
from tests.test_data.shard_server import serve

SIZE = 1000


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's memory with ten shards of a thousand bytes, shard n full of n."""
    files = fsspec.filesystem("memory")
    for number in range(10):
        files.pipe_file(f"/shards/{number}.tar", bytes([number]) * SIZE)
    yield files
    files.rm("/shards", recursive=True)


def location(number: int) -> str:
    return f"memory://shards/{number}.tar"


def names(folder: Path) -> list[str]:
    return sorted(path.name[33:] for path in folder.iterdir() if path.name != ".lock")


def touch(storage: Storage, number: int) -> None:
    file = storage.open(location(number), SIZE)
    assert isinstance(file, LocalFile)
    assert file.read(10, 5) == bytes([number]) * 5
    file.close()


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


def test_a_download_is_checked_against_the_manifests_hash(tmp_path: Path, memory: Any) -> None:
    storage = Storage(tmp_path)
    good = hashlib.sha256(bytes([5]) * SIZE).hexdigest()
    storage.open(location(5), SIZE, good).close()
    with pytest.raises(UserError, match=r"6\.tar: its bytes are not those of the manifest"):
        storage.open(location(6), SIZE, good)
    assert names(tmp_path) == ["5.tar.shard"]


def test_local_copies_follow_the_source(tmp_path: Path, memory: Any) -> None:
    storage = Storage(tmp_path / "cache")
    path = storage.local_copy(location(1))
    before = path.stat().st_mtime_ns
    assert path.read_bytes() == bytes([1]) * SIZE
    assert storage.local_copy(location(1)).stat().st_ino == path.stat().st_ino  # not again
    time.sleep(0.01)
    memory.pipe_file("/shards/1.tar", bytes([99]) * SIZE)  # of the same size
    assert storage.local_copy(location(1)).read_bytes() == bytes([99]) * SIZE
    assert path.stat().st_mtime_ns != before  # so that tables made from the old copy do not fit
    local = tmp_path / "here.tar"
    assert storage.local_copy(str(local)) == local
    with pytest.raises(UserError, match=r"2\.tar: its 1000 bytes do not fit into the 999 of .*cache_gb"):
        Storage(tmp_path / "cache", cache_bytes=999).local_copy(location(2))


def test_the_last_local_copy_is_not_evicted(tmp_path: Path, memory: Any) -> None:
    storage = Storage(tmp_path, cache_bytes=2 * SIZE)
    path = storage.local_copy(location(1))
    for number in (2, 3, 4):
        touch(storage, number)
    assert path.exists()
    storage.local_copy(location(5))
    touch(storage, 6)
    assert not path.exists()


def test_a_forked_process_neither_keeps_nor_unlocks_the_last_local_copy(tmp_path: Path, memory: Any) -> None:
    storage = Storage(tmp_path, cache_bytes=2 * SIZE)
    first = storage.local_copy(location(1))
    context = multiprocessing.get_context("fork")
    asked, done = context.Event(), context.Event()

    def ask() -> None:
        storage.local_copy(location(2))
        asked.set()
        done.wait(timeout=20)

    children = [context.Process(target=target) for target in (ask, partial(done.wait, 20))]
    for child in children:
        child.start()
    try:
        assert asked.wait(timeout=20)
        assert isinstance(storage.open(location(3), SIZE), RangeFile)  # the parent has the one, the child the other
        assert first.exists()
        storage_module._LATEST_COPY.release()
        touch(storage, 3)  # though a child that was forked while it was open still lives
        assert not first.exists()
    finally:
        done.set()
        for child in children:
            child.join()


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


def test_commands_run_only_where_allowed(tmp_path: Path) -> None:
    location = f"pipe:printf hallo; echo x >> {tmp_path}/runs"
    with pytest.raises(
        UserError, match=r"pipe:printf .*would run that command; .* --data\.allow_pipe true of bimodal-train$"
    ):
        Storage(tmp_path / "cache").open(location, 5)
    with pytest.raises(UserError, match="would run that command"):
        Storage(tmp_path / "cache").local_copy(location)
    assert not (tmp_path / "runs").exists()
    storage = Storage(tmp_path / "cache", allow_pipe=True, retries=1, first_delay=0.001)
    for _ in range(2):
        assert storage.open(location, 5).read(1, 3) == b"all"
    assert (tmp_path / "runs").read_text() == "x\n"  # the second time it was in the cache
    assert storage.local_copy(location).read_bytes() == b"hallo"
    assert (tmp_path / "runs").read_text() == "x\nx\n"  # only running it tells what it gives now
    with pytest.raises(UserError, match="holds more than the 4 bytes"):
        storage.open("pipe:printf other", 4)
    with pytest.raises(ServerFailed, match=r"ends at byte 5, before 6 \(tried 2 times\)"):
        storage.open("pipe:printf short", 6)
    with pytest.raises(ServerFailed, match=r"exit status 3: oh no \(tried 2 times\)"):
        storage.open("pipe:printf 123456; echo oh no >&2; exit 3", 6)
    with pytest.raises(UserError, match=r"a command's output must be kept whole, but .*cache_gb"):
        Storage(tmp_path / "other", cache_bytes=0, allow_pipe=True).open(location, 5)


def test_processes_share_one_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "a.tar").write_bytes(bytes(300_000))
    context = multiprocessing.get_context("fork")
    with serve(tmp_path) as server:
        server.pause = 0.02
        storage = Storage(tmp_path / "cache")
        all_open = context.Barrier(4)

        def read() -> None:
            file = storage.open(f"{server.url}/a.tar", 300_000)
            all_open.wait(timeout=10)  # nobody waits for those who have it open
            os._exit(0 if isinstance(file, LocalFile) and file.read(0, 300_000) == bytes(300_000) else 1)

        children = [context.Process(target=read) for _ in range(4)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0] * 4
        assert sum(asked == "bytes=0-299999" for _, asked in server.asked) == 1


def test_a_killed_download_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    data = os.urandom(2_000_000)
    (tmp_path / "a.tar").write_bytes(data)
    folder = tmp_path / "cache"
    with serve(tmp_path) as server:
        server.pause = 0.05
        url = f"{server.url}/a.tar"
        program = (
            f"from bimodal_cl.data.storage.storage import Storage\nfrom pathlib import Path\n"
            f"Storage(Path({str(folder)!r})).open({url!r}, {len(data)})"
        )
        process = subprocess.Popen([sys.executable, "-c", program])
        deadline = time.monotonic() + 20
        while not any(path.stat().st_blocks > 0 for path in folder.glob("*.part")) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert names(folder) == ["a.tar.part"]
        server.pause = 0.0
        file = Storage(folder).open(url, len(data))
        assert file.read(0, len(data)) == data
        assert names(folder) == ["a.tar.shard"]
        file.close()


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
    with pytest.raises(UserError, match="find no room in the 5000"):
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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cache_bytes": -1}, "cache_bytes must be >= 0, got -1"),
        ({"retries": -1}, "retries must be >= 0, got -1"),
        ({"timeout": 0.0}, r"timeout must be > 0, got 0\.0"),
        ({"connections": 0}, "connections must be >= 1, got 0"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Storage(**values)


def test_locations_nobody_can_read_are_refused(tmp_path: Path, memory: Any) -> None:
    storage = Storage(tmp_path / "cache")
    for bad, message in (
        ("foo://x.tar", "foo://x.tar: Protocol not known: foo"),
        ("memory://shards/none.tar", r"shard memory://shards/none\.tar: cannot be found"),
        ("memory://shards", "shard memory://shards: is a folder"),
        (str(tmp_path / "none.tar"), r"none\.tar: cannot be opened: No such file"),
    ):
        with pytest.raises(UserError, match=message):
            storage.open(bad, SIZE)
    try:
        import s3fs  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match=r"s3://b/x\.tar: .*pip install 'bimodal_cl\[s3\]'"):
            storage.open("s3://b/x.tar", SIZE)


def test_the_cache_is_where_the_user_keeps_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "bimodal_cl" / "shards"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_cache_dir() == Path("/home/somebody/.cache/bimodal_cl/shards")


def test_jobs_run_at_the_same_time_and_the_first_error_is_raised() -> None:
    running, most, done = [0], [0], []

    def work(number: int) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.02)
        running[0] -= 1
        done.append(number)

    run_concurrently([lambda n=n: work(n) for n in range(12)], 4)  # type: ignore[misc]
    assert sorted(done) == list(range(12)) and most[0] == 4

    def fail() -> None:
        raise UserError("one")

    with pytest.raises(UserError, match="one"):
        run_concurrently([fail], 4)
    run_concurrently([], 4)


def test_processes_that_evict_each_others_copies_read_right_bytes_within_the_limit(tmp_path: Path, memory: Any) -> None:
    storage = Storage(tmp_path, cache_bytes=3 * SIZE)
    context = multiprocessing.get_context("fork")

    def read_many(seed: int) -> None:
        order = random.Random(seed)
        for _ in range(60):
            number = order.randrange(10)
            file = storage.open(location(number), SIZE)
            if file.read(0, SIZE) != bytes([number]) * SIZE:
                os._exit(1)
            file.close()
        os._exit(0)

    children = [context.Process(target=read_many, args=(seed,)) for seed in range(4)]
    for child in children:
        child.start()
    most = 0
    while any(child.is_alive() for child in children):
        with ShardCache(tmp_path, 0)._folder_locked():
            most = max(most, sum(path.stat().st_size for path in tmp_path.iterdir() if path.suffix == ".shard"))
        time.sleep(0.005)
    assert [child.exitcode for child in children] == [0] * 4
    assert 0 < most <= 3 * SIZE
