"""A small data set of drawn shapes and a config for a model that trains in seconds."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from data_prep import cli

ROOT = Path(__file__).parents[2]

SMALL = {
    "seed": 3,
    "data": {"num_workers": 0},
    "model": {
        "image_size": 32,
        "embed_dim": 16,
        "vision": {"patch_size": 16, "width": 32, "layers": 1, "head_width": 16, "patch_dropout": 0.25},
        "text": {"context_length": 16, "width": 16, "heads": 1, "layers": 1},
    },
    "loss": {"name": "isogclr", "tau_init": 0.05, "rho": 1.0},
    "optim": {"learning_rate": 0.002, "warmup_steps": 2},
    "train": {"num_epochs": 2, "global_batch_size": 72, "log_every": 1, "device": "cpu"},
}


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """Shards of 384 training images, so that an epoch of 72-pair batches has 5 steps and drops 24 images."""
    folder = tmp_path_factory.mktemp("shapes") / "data"
    sizes = ["--num-train", "384", "--num-val", "12", "--num-retrieval", "12", "--images-per-concept", "1"]
    status = cli.main(["write", "synthetic", "--to", str(folder), "--side", "32", "--shard-size", "100", *sizes])
    assert status == 0
    return folder


@pytest.fixture
def write_config(tmp_path, shapes):
    """Write a config under a name, with keys of sections changed or the loss replaced, and return its path."""

    def write(name: str = "run", **changes: dict) -> Path:
        values = copy.deepcopy(SMALL)
        values["output"] = str(tmp_path / name)
        values["data"] |= {"train": str(shapes / "train"), "val": str(shapes / "val")}
        for section, keys in changes.items():
            values[section] = keys if section == "loss" else values.get(section, {}) | keys
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


@pytest.fixture
def start():
    """Start a command of this environment in another process, without a hub, on as many threads as here."""

    def start_(*arguments: str, **keywords) -> subprocess.Popen:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(torch.get_num_threads())}
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **keywords,
        )

    return start_
