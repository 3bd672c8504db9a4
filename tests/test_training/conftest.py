"""A small data set of drawn shapes, and trainings on it that take seconds."""

import copy
from pathlib import Path

import pytest
import yaml

from bimodal_cl import train
from data_prep import cli

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
# Each rank draws its own patch dropout, so runs on other numbers of ranks are compared without it.
WITHOUT_DROPOUT = {"vision": {**SMALL["model"]["vision"], "patch_dropout": 0.0}}


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
def run_training(write_config, tmp_path):
    """Train in this process with a config of that name (see ``write_config``); return the run's folder."""

    def run(name: str = "run", *flags: str, status: int = 0, **changes: dict) -> Path:
        assert train.main(["--config", str(write_config(name, **changes)), *flags]) == status
        return tmp_path / name

    return run


@pytest.fixture
def training_error(run_training, capsys):
    """Train, expect an exit status (2: a user's mistake) and return the last line on stderr."""

    def run(name: str = "run", *flags: str, status: int = 2, **changes: dict) -> str:
        capsys.readouterr()
        run_training(name, *flags, status=status, **changes)
        error = capsys.readouterr().err
        assert "Traceback" not in error
        return error.strip().splitlines()[-1]

    return run
