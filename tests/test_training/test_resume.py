"""A run that was killed and resumed equals an uninterrupted run bit for bit."""

import json
import shutil
import signal
import time
from functools import partial

import pytest
import torch

from bimodal_cl.models import build_model, load_model
from tests.test_training.conftest import SMALL
from tests.test_training.processes.launching import start_python
from tests.test_training.run_files import assert_equal_runs, copy_run, read_log

KEEP_ALL = {"every": 3, "keep_last": 9}
TWO_STEPS = {"num_steps": 2, "num_epochs": None}
LOSSES = [{"name": "isogclr", "rho": 1.0}, {"name": "macl", "alignment": "anchor"}, {"name": "clip"}]
NAMES = [loss["name"] for loss in LOSSES]


@pytest.fixture
def threads():
    """Set the number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(("loss", "num_threads"), [*zip(LOSSES, (2, 1, 1), strict=True)], ids=NAMES)
def test_resume_at_every_checkpoint_equals_no_interruption(run_training, threads, loss, num_threads):
    threads(num_threads)
    run = partial(run_training, loss=loss, checkpoint=KEEP_ALL)
    whole, part = run("whole"), run("part")
    assert_equal_runs(whole, part)
    for step in (3, 6, 9):  # an epoch has 5 steps
        run("part", "--resume", f"step_{step:08d}")
        assert_equal_runs(whole, part)


@pytest.mark.parametrize("after", ["gone", "another"])
def test_resume_needs_nothing_of_the_model_it_started_from(run_training, tmp_path, after):
    source = tmp_path / "source"
    model = build_model(**SMALL["model"])
    model.architecture = model.architecture.with_preprocess({"resize_mode": "squash", "mean": [0.5] * 3})
    model.save(source)
    run = partial(run_training, model=dict.fromkeys(SMALL["model"]) | {"pretrained": str(source)}, checkpoint=KEEP_ALL)
    whole = run("whole")
    part = copy_run(whole, "part")
    if after == "gone":
        shutil.rmtree(source)
    else:
        model.architecture = model.architecture.with_preprocess({"resize_mode": "longest"})
        model.save(source)
    run("part", "--resume", "step_00000006")
    assert_equal_runs(whole, part)
    assert load_model(part).transform == load_model(whole).transform


def test_kill_and_resume_equals_no_interruption(run_training, write_config, tmp_path):
    changes = {"data": {"num_workers": 1}, "checkpoint": {"every": 2}}
    whole = run_training("whole", **changes)
    arguments = ["-m", "bimodal_cl.train", "--config", str(write_config("killed", **changes))]
    process = start_python(*arguments, num_threads=torch.get_num_threads())
    log = tmp_path / "killed/metrics.jsonl"
    while process.poll() is None and (not log.exists() or len(log.read_text().splitlines()) < 4):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, process.stderr.read()
    assert_equal_runs(whole, run_training("killed", "--resume", "latest", **changes))


def test_resume_latest_without_a_checkpoint_starts_anew(run_training):
    run = run_training("run", "--resume", "latest", train={"num_steps": 1, "num_epochs": None})
    assert read_log(run)[0]["step"] == 1


def test_a_checkpoint_of_another_run_is_refused(run_training, training_error):
    run_training(train=TWO_STEPS)
    for flags, message in (
        (["--seed", "4"], "seed was 3, this config has 4"),
        (["--train.global_batch_size", "36"], "train.global_batch_size was 72, this config has 36"),
        (["--optim.beta1", "0.8", "--seed", "5"], "seed was 3, this config has 5"),
    ):
        assert message in training_error("run", "--resume", "latest", *flags, train=TWO_STEPS)


@pytest.mark.parametrize("change", ["order", "captions", "set"])
def test_other_data_of_equal_size_are_refused(run_training, training_error, shapes, tmp_path, change):
    data = shutil.copytree(shapes / "train", tmp_path / "data")
    run_training(data={"train": str(data)}, train=TWO_STEPS)
    moved = data.rename(tmp_path / "moved")
    changes = {"data": {"train": str(moved)}, "train": TWO_STEPS}
    run_training("run", "--resume", "latest", **changes)  # the same data in another folder
    manifest = json.loads((moved / "manifest.json").read_text())
    if change == "order":
        manifest["shards"].reverse()
    elif change == "captions":
        manifest["captions"] = "whole"
    else:
        manifest["shards"][0]["name"] = "other.tar"
        (moved / "00000.tar").rename(moved / "other.tar")
    (moved / "manifest.json").write_text(json.dumps(manifest))
    assert "data.shards was" in training_error("run", "--resume", "latest", **changes)


def test_the_rate_after_a_resume_is_that_of_the_steps_taken(run_training):
    changes = {"train": {"log_every": 4}, "checkpoint": {"every": 3}}
    run_training(**changes)
    run = run_training("run", "--resume", "step_00000009", **changes)
    for line, steps in zip(read_log(run, "train"), (4, 4, 1), strict=True):
        assert line["samples_per_second"] * line["seconds"] == pytest.approx(72 * steps)
