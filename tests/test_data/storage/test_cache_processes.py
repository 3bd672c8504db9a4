"""Processes that share the cache of shards: one download for all, nothing half, and locks end with their process."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bimodal_cl.data.storage import storage as storage_module
from bimodal_cl.data.storage.cache import ShardCache
from bimodal_cl.data.storage.shard_file import LocalFile, RangeFile
from bimodal_cl.data.storage.storage import Storage
from tests.test_data.shard_server import serve
from tests.test_data.storage.sources.memory_shards import SIZE, location, names, touch


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
