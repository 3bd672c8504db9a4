"""A training from a bad server, from index to the last step, is the training from the disk, bit for bit."""

import re
from types import SimpleNamespace

import pytest

from bimodal_cl import train
from data_prep import cli
from tests.test_data.shard_server import serve
from tests.test_training.test_resume import assert_equal_runs


@pytest.mark.parametrize("cache_gb", [0, 1])
def test_training_from_a_server_that_truncates_every_third_response(
    write_config, shapes, tmp_path, monkeypatch, cache_gb
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serve(shapes / "train") as server:
        server.fault = lambda number: "truncate" if number % 3 == 0 else ""
        remote = tmp_path / "remote" / "train"
        urls = f"{server.url}/{{00000..00003}}.tar"
        assert cli.main(["index", urls, "--to", str(remote), "--captions", "lines"]) == 0
        indexed = len(server.asked)
        data = {"num_workers": 1}
        assert train.main(["--config", str(write_config("disk", data=data))]) == 0
        # Another cache than the index's: every byte that is trained on comes from the server.
        data |= {"train": str(remote), "cache_gb": cache_gb, "cache_dir": str(tmp_path / "other")}
        assert train.main(["--config", str(write_config("server", data=data))]) == 0
        assert len(server.asked) > indexed + 4
    assert_equal_runs(tmp_path / "disk", tmp_path / "server")


@pytest.mark.parametrize("cache_gb", [0.0004, 0])  # room for one shard of four
def test_a_server_that_fails_ends_a_training_that_goes_on_later_as_if_nothing_had_been(
    write_config, shapes, tmp_path, monkeypatch, capsys, cache_gb
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("bimodal_cl.data.storage.retry.time", SimpleNamespace(sleep=lambda seconds: None))
    with serve(shapes / "train") as server:
        remote = str(tmp_path / "remote" / "train")
        urls = f"{server.url}/{{00000..00003}}.tar"
        assert cli.main(["index", urls, "--to", remote, "--captions", "lines"]) == 0
        data = {"train": remote, "cache_gb": cache_gb, "num_workers": 1, "shuffle_window": 1}
        rest = {"data": data | {"cache_dir": str(tmp_path / "first")}, "checkpoint": {"every": 2}}
        assert train.main(["--config", str(write_config("whole", **rest))]) == 0
        rest["data"]["cache_dir"] = str(tmp_path / "second")
        config = write_config("broken", **rest)
        latest = tmp_path / "broken" / "checkpoints" / "latest"
        server.fault = lambda number: "503" if latest.exists() else ""
        capsys.readouterr()
        assert train.main(["--config", str(config)]) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert re.fullmatch(r"error: .*/0000\d\.tar: the server answers 503 .*\(tried 9 times\).*", error)
        assert latest.exists() and not (latest.parent / "step_00000010").exists()
        server.fault = lambda number: ""
        assert train.main(["--config", str(config), "--resume", "latest"]) == 0
    assert_equal_runs(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.parametrize("longer", [True, False])
def test_a_shard_that_changed_on_its_server_is_refused_by_name(
    write_config, shapes, tmp_path, monkeypatch, capsys, longer
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "served"
    folder.mkdir()
    for path in (shapes / "train").glob("*.tar"):
        (folder / path.name).write_bytes(path.read_bytes())
    with serve(folder) as server:
        assert cli.main(["index", f"{server.url}/{{00000..00003}}.tar", "--to", str(tmp_path / "remote")]) == 0
        shard = folder / "00002.tar"
        data = shard.read_bytes()
        shard.write_bytes(data + bytes(512) if longer else data.replace(b"a", b"o"))
        data = {"train": str(tmp_path / "remote"), "cache_gb": 0, "cache_dir": str(tmp_path / "other")}
        capsys.readouterr()
        assert train.main(["--config", str(write_config("run", data=data))]) == 2
    assert f"{server.url}/00002.tar" in capsys.readouterr().err.splitlines()[-1]
