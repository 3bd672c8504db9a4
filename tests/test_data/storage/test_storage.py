"""Opening shards anywhere: commands, hashes, local copies, and what is refused."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest

from bimodal_cl.data.storage.storage import Storage, default_cache_dir
from bimodal_cl.errors import ServerFailed, UserError
from tests.test_data.storage.sources.memory_shards import SIZE, location, names, touch


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
