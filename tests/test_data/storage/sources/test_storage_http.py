"""Bytes from HTTP servers, good and bad: what arrives is right, or an error says whose fault it is."""

from __future__ import annotations

import multiprocessing
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bimodal_cl.data.storage.locations import redact
from bimodal_cl.data.storage.retry import RetryRule, fetch
from bimodal_cl.data.storage.shard_file import LocalFile, RangeFile
from bimodal_cl.data.storage.sources.schemes import open_source
from bimodal_cl.data.storage.storage import Storage
from bimodal_cl.errors import ServerFailed, UserError
from tests.test_data.shard_server import ShardServer, serve

SIZE = 3_000_000
DATA = random.Random(0).randbytes(SIZE)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShardServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "a.tar").write_bytes(DATA)
    with serve(folder) as running:
        yield running


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "cache", first_delay=0.001, timeout=5.0)


@pytest.fixture
def by_ranges(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "cache", cache_bytes=0, first_delay=0.001, timeout=5.0)


def every(n: int, kind: str) -> Callable[[int], str]:
    return lambda number: kind if number % n == 0 else ""


@pytest.mark.parametrize("fault", ["truncate", "drop", "503", "429"])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_shard_is_downloaded_in_spite_of_faults(
    server: ShardServer, storage: Storage, fault: str, ranges: bool
) -> None:
    server.ranges, server.fault = ranges, every(2, fault)
    file = storage.open(f"{server.url}/a.tar", SIZE)
    assert isinstance(file, LocalFile) and file.path is not None
    assert file.path.read_bytes() == DATA
    assert file.read(SIZE - 5, 5) == DATA[-5:] and file.read(7, 100_000) == DATA[7:100_007]
    asked = len(server.asked)
    assert asked >= 3  # the question for the size, the failure, and what was missing
    storage.open(f"{server.url}/a.tar", SIZE).close()
    assert len(server.asked) == asked  # a copy is asked for no more
    file.close()


def test_a_download_goes_on_where_it_broke_off(server: ShardServer, storage: Storage) -> None:
    server.fault = lambda number: "truncate" if number in (2, 3, 4) else ""
    storage.open(f"{server.url}/a.tar", SIZE).close()
    starts = [int(str(asked).removeprefix("bytes=").partition("-")[0]) for _, asked in server.asked[1:]]
    assert starts == [0, SIZE // 2, SIZE // 2 + SIZE // 4, SIZE // 2 + SIZE // 4 + SIZE // 8]


def test_a_file_that_changes_during_a_download_is_begun_anew(server: ShardServer, storage: Storage) -> None:
    other = bytes(reversed(DATA))

    def change(number: int) -> str:
        if number == 3:
            (server.folder / "a.tar").write_bytes(other)
        return "truncate" if number == 2 else ""

    server.fault = change
    file = storage.open(f"{server.url}/a.tar", SIZE)
    assert file.read(0, SIZE) == other
    file.close()


@pytest.mark.parametrize("fault", ["truncate", "drop", "500"])
def test_ranges_are_read_in_spite_of_faults(server: ShardServer, by_ranges: Storage, fault: str) -> None:
    server.fault = every(3, fault)
    file = by_ranges.open(f"{server.url}/a.tar", SIZE)
    assert isinstance(file, RangeFile)
    places = random.Random(1)
    for _ in range(20):
        start = places.randrange(SIZE)
        size = places.randrange(min(200_000, SIZE - start) + 1)
        assert file.read(start, size) == DATA[start : start + size]
    assert not list((by_ranges.cache_dir or Path()).glob("*.shard"))


def test_connections_are_kept_between_ranges(server: ShardServer, by_ranges: Storage) -> None:
    opened = []
    server.verify_request = lambda request, address: not opened.append(address)  # type: ignore[method-assign]
    file = by_ranges.open(f"{server.url}/a.tar", SIZE)
    for start in range(10):
        assert file.read(start, 9) == DATA[start : start + 9]
    assert len(server.asked) == 11 and len(opened) == 1


def test_a_forked_process_talks_on_connections_of_its_own(server: ShardServer, by_ranges: Storage) -> None:
    file = by_ranges.open(f"{server.url}/a.tar", SIZE)
    file.read(0, 10)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def read_many(first: int) -> None:
        queue.put(all(file.read(n, 1000) == DATA[n : n + 1000] for n in range(first, SIZE, 100_000)))

    children = [context.Process(target=read_many, args=(first,)) for first in (1, 2)]
    for child in children:
        child.start()
    assert [file.read(n, 1000) for n in range(3, SIZE, 100_000)] == [
        DATA[n : n + 1000] for n in range(3, SIZE, 100_000)
    ]
    assert [queue.get(timeout=20) for _ in children] == [True, True]
    for child in children:
        child.join()


def test_a_server_that_stays_down_is_given_up_and_named(server: ShardServer, storage: Storage) -> None:
    server.fault = lambda number: "503"
    message = r"^shard http://127\.0\.0\.1:\d+/a\.tar: the server answers 503 .* \(tried 9 times\)$"
    with pytest.raises(ServerFailed, match=message):
        storage.open(f"{server.url}/a.tar", SIZE)
    assert len(server.asked) == 9


def test_an_outage_of_about_two_minutes_is_bridged(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("bimodal_cl.data.storage.retry.time.sleep", waits.append)
    monkeypatch.setattr(
        "bimodal_cl.data.storage.retry.random.SystemRandom.uniform", lambda self, low, high: (low + high) / 2
    )
    defaults = Storage()
    with pytest.raises(ServerFailed, match=r"http://127\.0\.0\.1:9/a\.tar: no answer: .*\(tried 9 times\)"):
        defaults.open("http://127.0.0.1:9/a.tar", SIZE)  # nobody listens there
    assert 110 <= sum(waits) <= 130
    assert (RetryRule().retries, RetryRule().first_delay) == (defaults.retries, defaults.first_delay)


@pytest.mark.parametrize("status", ["401", "403", "410"])
def test_what_the_server_refuses_is_not_tried_again(server: ShardServer, storage: Storage, status: str) -> None:
    server.fault = lambda number: status
    with pytest.raises(UserError, match=rf"shard http://.*/a\.tar\?\.\.\.: the server answers {status}"):
        storage.open(f"{server.url}/a.tar?signature=secret", SIZE)
    assert len(server.asked) == 1


def test_a_missing_shard_is_the_users_mistake_and_secrets_stay_out_of_messages(
    server: ShardServer, storage: Storage
) -> None:
    with pytest.raises(UserError, match=r"/b\.tar\?\.\.\.: the server answers 404 Not Found") as caught:
        storage.open(f"{server.url}/b.tar?signature=secret", SIZE)
    assert "secret" not in str(caught.value)
    assert redact("https://me:word@host.org/x.tar") == "https://host.org/x.tar"


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("cache_bytes", [0, 10**9])
@pytest.mark.parametrize(("size", "what"), [(SIZE - 1, "changed"), (SIZE + 1, "truncated")])
def test_a_shard_of_another_size_is_refused(
    server: ShardServer, tmp_path: Path, ranges: bool, cache_bytes: int, size: int, what: str
) -> None:
    server.ranges = ranges
    storage = Storage(tmp_path / "cache", cache_bytes, retries=1, first_delay=0.001)
    with pytest.raises(UserError, match=rf"a\.tar: holds {SIZE} bytes but the manifest says {size}: it is {what}"):
        storage.open(f"{server.url}/a.tar", size)
    assert not list((tmp_path / "cache").glob("*.shard"))


def test_a_server_without_ranges_needs_the_cache(server: ShardServer, by_ranges: Storage) -> None:
    server.ranges = False
    file = by_ranges.open(f"{server.url}/a.tar", SIZE)
    assert file.read(0, 10) == DATA[:10]
    with pytest.raises(UserError, match=r"a\.tar: cannot be read by ranges .*do not fit into the 0 of .*cache_gb"):
        file.read(5, 10)


def test_chunks_without_a_length_end_where_they_say(server: ShardServer, storage: Storage) -> None:
    server.ranges, server.chunked = False, True
    server.fault = lambda number: "truncate" if number == 2 else ""
    file = storage.open(f"{server.url}/a.tar", SIZE)
    assert file.read(0, SIZE) == DATA
    file.close()


def test_redirections_are_followed(server: ShardServer, by_ranges: Storage) -> None:
    assert by_ranges.open(f"{server.url}/moved/a.tar", SIZE).read(10, 20) == DATA[10:30]
    with pytest.raises(UserError, match="more than 10 redirections"):
        by_ranges.open(f"{server.url}{'/moved' * 11}/a.tar", SIZE)


def test_a_proxy_of_the_environment_is_used(
    server: ShardServer, by_ranges: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", server.url)
    assert by_ranges.open("http://shards.example/a.tar", SIZE).read(5, 5) == DATA[5:10]
    assert {path for path, _ in server.asked} == {"http://shards.example/a.tar"}


def test_the_wait_doubles_and_heeds_what_the_server_asks(server: ShardServer, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("bimodal_cl.data.storage.retry.time.sleep", waits.append)
    server.fault = lambda number: "drop" if number < 5 else "429" if number == 5 else ""
    server.headers = {"Retry-After": "17"}
    got: list[bytes] = []
    fetch(
        open_source(f"{server.url}/a.tar", 5.0), 0, 9, SIZE, lambda _, data: got.append(data), RetryRule(5, 1.0, 30.0)
    )
    assert b"".join(got) == DATA[:9]
    waits = [wait for wait in waits if wait]  # without the server's
    for wait, expected in zip(waits, (2, 4, 8, 17), strict=True):  # the first drop is tried again at once
        assert 0.5 * expected <= wait <= 1.5 * expected


def test_threads_may_share_a_file(server: ShardServer, by_ranges: Storage) -> None:
    file = by_ranges.open(f"{server.url}/a.tar", SIZE)
    wrong: list[int] = []

    def read_some(first: int) -> None:
        starts = range(first, SIZE - 2000, 300_000)
        wrong.extend(start for start in starts if file.read(start, 2000) != DATA[start : start + 2000])

    server.fault = every(4, "truncate")
    threads = [threading.Thread(target=read_some, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(server.asked) > 60
