"""Encoded shards of noise, and trainings of heads on their features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bimodal_cl import train
from data_prep import cli
from tests.locked_towers import merge, write_locked_config, write_noise


class Encoded(NamedTuple):
    """Folders of shards and of their features: ``train`` and ``more`` with two views, ``val`` with one."""

    data: Path
    features: Path


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    folder = tmp_path_factory.mktemp("encoded")
    data, features = folder / "data", folder / "features"
    write_noise(data / "train", [25, 24], broken=[7])
    write_noise(data / "more", [13], first=300)
    write_noise(data / "val", [14], first=500, broken=[2])
    config = write_locked_config(folder / "run.yaml", data / "train")
    status = cli.main(
        ["encode", str(data), "--model", str(config), "--to", str(features), "--views", "2", "--num-workers", "0"]
    )
    assert status == 0
    return Encoded(data, features)


@pytest.fixture
def write_run(encoded: Encoded, tmp_path: Path) -> Callable[..., Path]:
    """Write a config that trains heads on the features, with changes, and return its path."""

    def write(name: str = "run", **changes: Any) -> Path:
        own = {
            "output": str(tmp_path / name),
            "data": {"val": str(encoded.data / "val"), "features": str(encoded.features), "max_bad_fraction": 0.2},
            "model": {"text": {"hf_model_name": str(encoded.data.parent / "bert")}},
        }
        path = tmp_path / f"{name}.yaml"
        write_locked_config(path, encoded.data / "train", merge(own, changes))
        return path

    return write


@pytest.fixture
def run_heads(write_run: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Train in this process with a config of that name; return the run's folder."""

    def run(name: str = "run", *flags: str, **changes: Any) -> Path:
        assert train.main(["--config", str(write_run(name, **changes)), *flags]) == 0
        return tmp_path / name

    return run


@pytest.fixture
def heads_error(write_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Train, expect a user's mistake, and return the last line on stderr."""

    def run(name: str = "run", *flags: str, **changes: Any) -> str:
        capsys.readouterr()
        assert train.main(["--config", str(write_run(name, **changes)), *flags]) == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error
        return error.strip().splitlines()[-1]

    return run
