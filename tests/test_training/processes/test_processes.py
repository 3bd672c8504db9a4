"""Two processes give the same run as one process with the same global batch."""

import json
import shutil

import pytest

from tests.test_training.conftest import WITHOUT_DROPOUT
from tests.test_training.processes.launching import launch
from tests.test_training.run_files import read_losses


@pytest.mark.parametrize("loss", [{"name": "isogclr", "rho": 1.0}, {"name": "clip"}], ids=lambda loss: loss["name"])
def test_two_processes_equal_one(run_training, write_config, tmp_path, loss):
    changes = {"loss": loss, "train": {"num_epochs": None, "num_steps": 20}, "model": WITHOUT_DROPOUT}
    run_training("on_1", **changes)
    done = launch(write_config("on_2", **changes), 2)
    assert done.returncode == 0, done.stderr
    state = json.loads((tmp_path / "on_2/checkpoints/latest/state.json").read_text())
    assert state["num_processes"] == 2
    one, two = (read_losses(tmp_path / f"on_{count}") for count in (1, 2))
    assert len(one) == 20
    assert two == pytest.approx(one, rel=1e-4)


def test_a_batch_that_processes_cannot_share_is_refused(write_config):
    config = write_config("odd", train={"global_batch_size": 5, "num_epochs": 1})
    done = launch(config, 2)
    assert done.returncode != 0
    assert "train.global_batch_size=5 cannot be shared by 2 processes" in done.stderr


def test_data_that_fail_on_one_rank_end_all_with_a_line_each(write_config, shapes, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(shapes / "train", folder)
    shard = folder / "00001.tar"
    shard.write_bytes(bytes(shard.stat().st_size))  # as large as before, but empty
    steps = {"num_epochs": 1, "global_batch_size": 2}
    done = launch(write_config("run", data={"train": str(folder), "shuffle_window": 1}, train=steps), 2)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert any("00001.tar" in line for line in errors), done.stderr
    own = done.stderr.split("Root Cause")[0]  # the launcher appends its own report
    assert "bimodal_cl/trainer.py" not in own, own
