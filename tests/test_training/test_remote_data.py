"""A training from an unreliable server is bit for bit the training from local shards."""

import re
import shutil
from types import SimpleNamespace

import pytest

from data_prep import cli
from tests.test_data.shard_server import serve
from tests.test_training.run_files import assert_equal_runs


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def index_shards(server, folder) -> None:
    """Write the manifest of the four shards of a server."""
    urls = f"{server.url}/{{00000..00003}}.tar"
    assert cli.main(["index", urls, "--to", str(folder), "--captions", "lines"]) == 0


@pytest.mark.parametrize("cache_gb", [0, 1])
def test_training_from_a_server_that_truncates_every_third_response(run_training, shapes, tmp_path, cache_gb):
    with serve(shapes / "train") as server:
        server.fault = lambda number: "truncate" if number % 3 == 0 else ""
        remote = tmp_path / "remote" / "train"
        index_shards(server, remote)
        indexed = len(server.asked)
        data = {"num_workers": 1}
        disk = run_training("disk", data=data)
        # The cache is not the one of the index, so that every byte in training comes from the server.
        data |= {"train": str(remote), "cache_gb": cache_gb, "cache_dir": str(tmp_path / "other")}
        from_server = run_training("server", data=data)
        assert len(server.asked) > indexed + 4
    assert_equal_runs(disk, from_server)


@pytest.mark.parametrize("cache_gb", [0.0004, 0])  # room for one shard of four
def test_a_training_that_a_server_ended_resumes_bit_for_bit(
    run_training, training_error, shapes, tmp_path, monkeypatch, cache_gb
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("bimodal_cl.data.storage.retry.time", SimpleNamespace(sleep=lambda seconds: None))
    with serve(shapes / "train") as server:
        remote = tmp_path / "remote" / "train"
        index_shards(server, remote)
        data = {"train": str(remote), "cache_gb": cache_gb, "num_workers": 1, "shuffle_window": 1}
        rest = {"data": data | {"cache_dir": str(tmp_path / "first")}, "checkpoint": {"every": 2}}
        whole = run_training("whole", **rest)
        rest["data"]["cache_dir"] = str(tmp_path / "second")
        latest = tmp_path / "broken" / "checkpoints" / "latest"
        server.fault = lambda number: "503" if latest.exists() else ""
        error = training_error("broken", status=1, **rest)
        assert re.fullmatch(r"error: .*/0000\d\.tar: the server answers 503 .*\(tried 9 times\).*", error)
        assert latest.exists() and not (latest.parent / "step_00000010").exists()
        server.fault = lambda number: ""
        broken = run_training("broken", "--resume", "latest", **rest)
    assert_equal_runs(whole, broken)


@pytest.mark.parametrize("longer", [True, False])
def test_a_shard_that_changed_on_its_server_is_refused_by_name(training_error, shapes, tmp_path, longer):
    folder = shutil.copytree(shapes / "train", tmp_path / "served")
    with serve(folder) as server:
        index_shards(server, tmp_path / "remote")
        shard = folder / "00002.tar"
        data = shard.read_bytes()
        shard.write_bytes(data + bytes(512) if longer else data.replace(b"a", b"o"))
        data = {"train": str(tmp_path / "remote"), "cache_gb": 0, "cache_dir": str(tmp_path / "other")}
        assert f"{server.url}/00002.tar" in training_error(data=data)
