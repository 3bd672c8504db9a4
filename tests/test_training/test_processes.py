"""Two processes give the one-process run on the same global batch."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["event"] == "train"]


def launch(config: Path, num_processes: int, *flags: str) -> subprocess.CompletedProcess:
    name = {1: "one_process", 2: "two_processes_cpu"}[num_processes]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", f"configs/accelerate/{name}.yaml"]
    command += ["-m", "bimodal_cl.train", "--config", str(config), *flags]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("loss", [{"name": "isogclr", "rho": 1.0}, {"name": "clip"}], ids=lambda loss: loss["name"])
def test_two_processes_equal_one(write_config, tmp_path, loss):
    # Patch dropout is drawn on each rank by itself, so it is off here; everything else must agree.
    steps = {"num_epochs": None, "num_steps": 20, "global_batch_size": 72, "log_every": 1, "device": "cpu"}
    vision = {"patch_size": 16, "width": 32, "layers": 1, "head_width": 16}
    for count in (1, 2):
        config = write_config(f"on_{count}", loss=loss, train=steps, model={"vision": vision})
        done = launch(config, count)
        assert done.returncode == 0, done.stderr
    state = json.loads((tmp_path / "on_2/checkpoints/latest/state.json").read_text())
    assert state["num_processes"] == 2
    one, two = losses(tmp_path / "on_1"), losses(tmp_path / "on_2")
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
    shard.write_bytes(bytes(shard.stat().st_size))  # as large as before, and empty
    steps = {"num_epochs": 1, "global_batch_size": 2, "device": "cpu"}
    done = launch(write_config("run", data={"train": str(folder), "shuffle_window": 1}, train=steps), 2)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert any("00001.tar" in line for line in errors), done.stderr
    own = done.stderr.split("Root Cause")[0]  # the launcher adds a report of its own
    assert "bimodal_cl/trainer.py" not in own, own
