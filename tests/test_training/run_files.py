"""Read the files of a run, and compare two runs bit for bit."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

CLOCK = ("seconds", "data_seconds", "data_share", "samples_per_second", "memory_mib")


def read_log(run: Path, event: str = "", clock: bool = True) -> list[dict]:
    """Return the lines of a run's log, or those of one event; ``clock=False`` leaves out what a clock measured."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    dropped = () if clock else CLOCK
    return [
        {key: value for key, value in line.items() if key not in dropped}
        for line in lines
        if event in ("", line["event"])
    ]


def read_losses(run: Path) -> list[float]:
    """Return the loss of each step."""
    return [line["loss"] for line in read_log(run, "train")]


def copy_run(run: Path, name: str) -> Path:
    """Copy a run's folder beside it, and return the copy."""
    return shutil.copytree(run, run.with_name(name), symlinks=True)


def assert_equal_tensors(first: Path, second: Path) -> None:
    """Assert that two safetensors files hold the same tensors; NaN equals NaN."""
    saved, other = load_file(first), load_file(second)
    assert saved.keys() == other.keys()
    for key in saved:
        np.testing.assert_array_equal(saved[key].numpy(), other[key].numpy(), err_msg=key)


def assert_equal_runs(first: Path, second: Path) -> None:
    """Assert that the logs and the newest checkpoints of two runs are equal."""
    assert read_log(first, clock=False) == read_log(second, clock=False)
    last = [run / "checkpoints" / "latest" for run in (first, second)]
    for name in ("model.safetensors", "loss.safetensors"):
        assert_equal_tensors(last[0] / name, last[1] / name)
    moments = [torch.load(folder / "optimizer.pt", weights_only=True)["state"] for folder in last]
    for index, values in moments[0].items():
        for name, value in values.items():
            other = moments[1][index][name]
            same = torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
            assert same, (index, name)
