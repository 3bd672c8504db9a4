"""A run that was killed and resumed is the run that was not, bit for bit."""

import json
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bimodal_cl import train
from bimodal_cl.models import build_model, load_model
from tests.test_training.conftest import SMALL

CLOCK = ("seconds", "data_seconds", "samples_per_second")


def metrics(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in lines]


def assert_equal_runs(first: Path, second: Path) -> None:
    assert metrics(first) == metrics(second)
    last = [run / "checkpoints" / "latest" for run in (first, second)]
    for name in ("model.safetensors", "loss.safetensors"):
        saved, other = load_file(last[0] / name), load_file(last[1] / name)
        assert saved.keys() == other.keys()
        for key in saved:
            np.testing.assert_array_equal(saved[key].numpy(), other[key].numpy(), err_msg=key)  # NaN equals NaN
    moments = [torch.load(folder / "optimizer.pt", weights_only=True)["state"] for folder in last]
    for index, values in moments[0].items():
        for name, value in values.items():
            assert torch.equal(value, moments[1][index][name]), (index, name)


SHORT = {"global_batch_size": 72, "log_every": 1, "device": "cpu"}
LOSSES = [{"name": "isogclr", "rho": 1.0}, {"name": "macl", "alignment": "anchor"}, {"name": "clip"}]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss["name"])
def test_resume_at_every_checkpoint_equals_no_interruption(write_config, tmp_path, loss):
    write = partial(write_config, checkpoint={"every": 3, "keep_last": 9})
    assert train.main(["--config", str(write("whole", loss=loss))]) == 0
    part = write("part", loss=loss)
    assert train.main(["--config", str(part)]) == 0
    assert_equal_runs(tmp_path / "whole", tmp_path / "part")
    for step in (3, 6, 9):  # an epoch has 5 steps
        assert train.main(["--config", str(part), "--resume", f"step_{step:08d}"]) == 0
        assert_equal_runs(tmp_path / "whole", tmp_path / "part")


@pytest.mark.parametrize("after", ["gone", "another"])
def test_resume_needs_nothing_of_the_model_it_started_from(write_config, tmp_path, after):
    source = tmp_path / "source"
    model = build_model(**SMALL["model"])
    model.architecture = model.architecture.with_preprocess({"resize_mode": "squash", "mean": [0.5] * 3})
    model.save(source)
    write = partial(write_config, model=dict.fromkeys(SMALL["model"]) | {"pretrained": str(source)})
    write = partial(write, checkpoint={"every": 3, "keep_last": 9})
    assert train.main(["--config", str(write("whole"))]) == 0
    part = write("part")
    assert train.main(["--config", str(part)]) == 0
    if after == "gone":
        shutil.rmtree(source)
    else:
        model.architecture = model.architecture.with_preprocess({"resize_mode": "longest"})
        model.save(source)
    assert train.main(["--config", str(part), "--resume", "step_00000006"]) == 0
    assert_equal_runs(tmp_path / "whole", tmp_path / "part")
    assert load_model(tmp_path / "part").transform == load_model(tmp_path / "whole").transform


def test_kill_and_resume_equals_no_interruption(write_config, tmp_path, start):
    whole = write_config("whole", data={"num_workers": 1}, checkpoint={"every": 2})
    assert train.main(["--config", str(whole)]) == 0
    killed = write_config("killed", data={"num_workers": 1}, checkpoint={"every": 2})
    process = start("bimodal_cl.train", "--config", str(killed))
    log = tmp_path / "killed/metrics.jsonl"
    while process.poll() is None and (not log.exists() or len(log.read_text().splitlines()) < 4):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, process.stderr.read()
    assert train.main(["--config", str(killed), "--resume", "latest"]) == 0
    assert_equal_runs(tmp_path / "whole", tmp_path / "killed")


def test_resume_latest_without_a_checkpoint_starts_anew(write_config, tmp_path):
    config = write_config("run", train={**SHORT, "num_steps": 1, "num_epochs": None})
    assert train.main(["--config", str(config), "--resume", "latest"]) == 0
    assert metrics(tmp_path / "run")[0]["step"] == 1


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (["--seed", "4"], "seed was 3, this config has 4"),
        (["--train.global_batch_size", "36"], "train.global_batch_size was 72, this config has 36"),
        (["--optim.beta1", "0.8", "--seed", "5"], "seed was 3, this config has 5"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(write_config, tmp_path, capsys, flag, message):
    config = write_config("run", train={**SHORT, "num_steps": 2, "num_epochs": None})
    assert train.main(["--config", str(config)]) == 0
    capsys.readouterr()
    assert train.main(["--config", str(config), "--resume", "latest", *flag]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("change", ["order", "captions", "set"])
def test_other_data_of_equal_size_are_refused(write_config, shapes, tmp_path, capsys, change):
    data = tmp_path / "data"
    shutil.copytree(shapes / "train", data)
    config = write_config("run", data={"train": str(data)}, train={**SHORT, "num_steps": 2, "num_epochs": None})
    assert train.main(["--config", str(config)]) == 0
    moved = tmp_path / "moved"
    data.rename(moved)
    flags = ["--config", str(config), "--resume", "latest", "--data.train", str(moved)]
    assert train.main(flags) == 0  # the same data in another folder
    manifest = json.loads((moved / "manifest.json").read_text())
    if change == "order":
        manifest["shards"].reverse()
    elif change == "captions":
        manifest["captions"] = "whole"
    else:
        manifest["shards"][0]["name"] = "other.tar"
        (moved / "00000.tar").rename(moved / "other.tar")
    (moved / "manifest.json").write_text(json.dumps(manifest))
    capsys.readouterr()
    assert train.main(flags) == 2
    assert "data.shards was" in capsys.readouterr().err


def test_the_rate_after_a_resume_is_that_of_the_steps_taken(write_config, tmp_path):
    config = write_config("run", train={**SHORT, "num_epochs": 2, "log_every": 4}, checkpoint={"every": 3})
    assert train.main(["--config", str(config)]) == 0
    assert train.main(["--config", str(config), "--resume", "step_00000009"]) == 0
    for line, steps in zip(metrics_with_clock(tmp_path / "run"), (4, 4, 1), strict=True):
        assert line["samples_per_second"] * line["seconds"] == pytest.approx(72 * steps)


def metrics_with_clock(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "train"]
