"""A server that fails too often ends what needs it, in one line; its rows are never taken for faulty ones."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bimodal_cl.cli.exit_status import EXIT_FAILURE, with_exit_status
from bimodal_cl.data import Manifest
from bimodal_cl.data.shards.reader import RowReader
from bimodal_cl.data.storage import shard_file as shard_file_module
from bimodal_cl.data.storage.storage import Storage
from bimodal_cl.errors import ServerFailed
from data_prep import cli
from tests.test_data.remote_shards import write_remote_manifest
from tests.test_data.shard_server import ShardServer


@pytest.fixture
def folder(write_shards: Callable[..., Path]) -> Path:
    return write_shards([3, 5])


@pytest.mark.parametrize("cache_bytes", [0, 10**9])
def test_whatever_needs_a_dead_server_says_that_it_failed(
    folder: Path, server: ShardServer, tmp_path: Path, cache_bytes: int
) -> None:
    manifest = write_remote_manifest(folder, tmp_path / "remote", server.url)
    server.fault = lambda number: "500"
    reader = RowReader(manifest, Storage(tmp_path / "cache", cache_bytes, retries=2, first_delay=0.001))
    message = r"^shard http://.*/001\.tar: the server answers 500 .* \(tried 3 times\)$"
    for action in (lambda: reader.read(4), lambda: reader.read_captions(4), lambda: reader.prefetch([4, 5])):
        asked = len(server.asked)
        with pytest.raises(ServerFailed, match=message):
            action()
        assert len(server.asked) == asked + 3  # each makes all its tries: nothing is remembered of a failure
    assert reader.describe(4)[1] == "row 1"
    server.fault = lambda number: ""
    reader.prefetch([4, 5])
    assert reader.read(4).captions == RowReader(Manifest.load(folder)).read(4).captions
    reader.close()


def test_a_server_that_dies_between_two_ranges_failed_too(folder: Path, server: ShardServer, tmp_path: Path) -> None:
    manifest = write_remote_manifest(folder, tmp_path / "remote", server.url)
    reader = RowReader(manifest, Storage(tmp_path / "cache", 0, retries=1, first_delay=0.001))
    reader.read(4)
    server.fault = lambda number: "503"
    with pytest.raises(ServerFailed, match=r"001\.tar: the server answers 503 .* \(tried 2 times\)"):
        reader.read(5)
    with pytest.raises(ServerFailed, match=r"001\.tar: the server answers 503 .* \(tried 2 times\)"):
        reader.prefetch([5, 6])
    reader.close()


def test_a_disk_that_fails_is_no_server(
    folder: Path, server: ShardServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_remote_manifest(folder, tmp_path / "remote", server.url)
    reader = RowReader(manifest, Storage(tmp_path / "cache"))
    reader.prefetch([1, 2])

    def broken(*args: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(shard_file_module.os, "pread", broken)
        with pytest.raises(OSError, match="Input/output error") as caught:
            reader.read(1)
        assert not isinstance(caught.value, ServerFailed)
    reader.close()


def test_commands_say_in_a_line_that_a_server_failed(capsys: pytest.CaptureFixture[str]) -> None:
    def command(argv: object) -> None:
        raise ServerFailed("shard http://host/a.tar: the server answers 503 (tried 9 times)")

    assert with_exit_status(command)([]) == EXIT_FAILURE
    said = capsys.readouterr()
    assert said.err == "error: shard http://host/a.tar: the server answers 503 (tried 9 times)\n" and not said.out


@pytest.mark.parametrize("where", ["server", "command"])
def test_an_index_of_what_fails_ends_in_a_line(
    server: ShardServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("bimodal_cl.data.storage.retry.time.sleep", lambda seconds: None)
    server.fault = lambda number: "503"
    location = f"{server.url}/{{000..001}}.tar" if where == "server" else "pipe:false"
    flags = ["--to", str(tmp_path / "index"), "--workers", "1", "--allow-pipe"]
    assert cli.main(["index", location, *flags]) == EXIT_FAILURE
    (line,) = capsys.readouterr().err.strip().splitlines()
    shard = r"shard http://.*/000\.tar: the server answers 503 .*" if where == "server" else r"shard pipe:false: .*"
    assert re.fullmatch(rf"error: {shard}\(tried 9 times\)", line)
