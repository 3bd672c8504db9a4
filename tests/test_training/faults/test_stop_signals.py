"""A signal lets a run finish its step, save and end with the command that continues it, bit for bit."""

import os
import signal
import subprocess

import pytest

from bimodal_cl import checkpoint
from bimodal_cl.cli.resume_command import compose_resume_command
from bimodal_cl.training.encoded_batch import EncodedBatch
from tests.test_training.conftest import WITHOUT_DROPOUT
from tests.test_training.faults.signalled_runs import (
    continue_run,
    find_ranks,
    printed_command,
    signal_group,
    start_training,
    wait_for_step,
)
from tests.test_training.processes.launching import ROOT
from tests.test_training.run_files import assert_equal_runs, read_log

# Checkpoints are rare, so what a stop saves is what the continued run has.
LONG = {"train": {"num_epochs": None, "num_steps": 30, "evaluate_every": 20}, "checkpoint": {"every": 50}}


def checkpoints(run):
    return sorted(path.name for path in (run / "checkpoints").glob("step_*"))


@pytest.fixture
def signal_at_step(monkeypatch):
    """Send this process a signal in the middle of a step."""

    def arrange(step: int, number: signal.Signals) -> None:
        real = EncodedBatch.backward

        def backward(self):
            nonlocal step
            step -= 1
            if step == 0:
                os.kill(os.getpid(), number)
            return real(self)

        monkeypatch.setattr(EncodedBatch, "backward", backward)

    return arrange


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=lambda each: each.name)
def test_a_signal_loses_nothing(run_training, signal_at_step, capfd, number):
    before = signal.getsignal(number)
    whole = run_training("whole", **LONG)
    signal_at_step(7, number)
    capfd.readouterr()
    stopped = run_training("stopped", **LONG)
    errors = capfd.readouterr().err
    assert f"{number.name}: the run finishes this step, saves and ends" in errors
    assert f"{number.name}: stopped after step 7, which is saved; continue with: " in errors
    assert checkpoints(stopped) == ["step_00000007"]
    assert read_log(stopped)[-1]["step"] == 7
    assert signal.getsignal(number) is before
    run_training("stopped", "--resume", "latest", **LONG)
    assert_equal_runs(stopped, whole)


def test_ctrl_c_reaches_the_workers_too_and_the_printed_command_continues(write_config, run_training, tmp_path):
    changes = {**LONG, "data": {"num_workers": 2}}
    process = start_training(write_config("stopped", **changes))
    wait_for_step(process, tmp_path / "stopped", 7)
    signal_group(process, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    continue_run(errors)
    assert_equal_runs(tmp_path / "stopped", run_training("whole", **changes))


def test_all_ranks_stop_after_the_same_step(write_config, tmp_path):
    """The first signal reaches one rank alone, the second the launcher, which passes it on."""
    changes = {**LONG, "model": WITHOUT_DROPOUT}
    process = start_training(write_config("stopped", **changes), 2)
    wait_for_step(process, tmp_path / "stopped", 5)
    find_ranks(process)[1].send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "SIGTERM: stopped after step" in errors and "Traceback" not in errors
    again = subprocess.Popen(
        printed_command(errors), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    first = len(read_log(tmp_path / "stopped", "train"))
    wait_for_step(again, tmp_path / "stopped", first + 5)
    again.send_signal(signal.SIGTERM)
    _, errors = again.communicate(timeout=60)
    assert "SIGTERM: stopped after step" in errors
    continue_run(errors)
    whole = start_training(write_config("whole", **changes), 2)
    _, errors = whole.communicate(timeout=120)
    assert whole.returncode == 0, errors
    assert_equal_runs(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_only_a_second_ctrl_c_stops_at_once(run_training, monkeypatch, capfd, second):
    """It comes while the checkpoint that the first one asked for is written."""
    real = checkpoint.write_checksums

    def interrupted(folder):
        os.kill(os.getpid(), second)
        return real(folder)

    before = run_training("run", train={"num_epochs": 1})
    monkeypatch.setattr(EncodedBatch, "backward", lambda self: os.kill(os.getpid(), signal.SIGINT))
    monkeypatch.setattr(checkpoint, "write_checksums", interrupted)
    capfd.readouterr()
    status = 130 if second == signal.SIGINT else 0
    run_training("run", "--resume", "latest", status=status, train={"num_epochs": 2})
    errors = capfd.readouterr().err
    assert "Traceback" not in errors
    assert errors.strip().endswith("interrupted") == (second == signal.SIGINT)
    kept = ["step_00000005"] if second == signal.SIGINT else ["step_00000005", "step_00000006"]
    assert checkpoints(before) == kept
    assert not list((before / "checkpoints").glob("*.partial"))


def test_an_evaluation_is_left_and_made_up_for(write_config, run_training, tmp_path, monkeypatch):
    from bimodal_cl.scoring.evaluation import Evaluation

    real, calls = Evaluation.__call__, []

    def interrupted(self, model):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, model)

    changes = {
        "train": {"num_epochs": 4, "evaluate_every": 4},
        "checkpoint": {"every": 100, "best": "retrieval/image_retrieval_recall@5"},
    }
    whole = run_training("whole", **changes)
    monkeypatch.setattr(Evaluation, "__call__", interrupted)
    stopped = run_training("stopped", **changes)
    assert [line["step"] for line in read_log(stopped, "evaluate")] == [4]
    assert "step_00000008" in checkpoints(stopped)
    run_training("stopped", "--resume", "latest", **changes)
    assert_equal_runs(stopped, whole)
    assert (stopped / "checkpoints/best").readlink() == (whole / "checkpoints/best").readlink()


@pytest.mark.parametrize(
    ("argv", "parent", "program", "command"),
    [
        (["--config", "a b.yaml"], ["bash"], "/x/bimodal-train", "bimodal-train --config 'a b.yaml' --resume latest"),
        (
            ["--config", "a.yaml", "--resume", "step_1", "--seed", "3"],
            [],
            "/x/bimodal_cl/train.py",
            "python -m bimodal_cl.train --config a.yaml --seed 3 --resume latest",
        ),
        (
            ["--config", "a.yaml", "--resume=best"],
            ["/x/python3.11", "/x/accelerate", "launch", "--num_processes", "8", "-m", "bimodal_cl.train"],
            "/x/bimodal_cl/train.py",
            "accelerate launch --num_processes 8 -m bimodal_cl.train --config a.yaml --resume latest",
        ),
        (
            ["--config", "a.yaml"],
            ["/x/python3", "-m", "torch.distributed.run", "-m", "bimodal_cl.train"],
            "/x/bimodal_cl/train.py",
            "python -m torch.distributed.run -m bimodal_cl.train --config a.yaml --resume latest",
        ),
    ],
)
def test_the_command_is_the_users_own(monkeypatch, argv, parent, program, command):
    monkeypatch.setattr("sys.argv", [program, *argv])
    words = [*parent, *argv] if parent and parent[0] != "bash" else parent
    assert compose_resume_command(argv, words) == command
