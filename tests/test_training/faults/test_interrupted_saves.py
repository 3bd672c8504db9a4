"""A second Ctrl-C or a kill between two steps of a save leaves whole checkpoints only."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from bimodal_cl.checkpoint import save_checkpoint
from bimodal_cl.files.checksums import find_damage
from bimodal_cl.run_folder import RunFolder
from bimodal_cl.training.step_values import StepValues
from tests.test_training.run_files import assert_equal_runs


class Killed(BaseException):
    """What ends the process, as ``KeyboardInterrupt`` does."""


def save(run, step, keep_last=1):
    model = {"save_model": lambda folder: (folder / "model.json").write_text(f"{step}")}
    save_checkpoint(run, {"step": step}, loss_state={}, optimizer_state={}, keep_last=keep_last, **model)


def whole_checkpoints(run):
    assert all(find_damage(path) is None for path in run.list_checkpoints())
    return [path.name for path in run.list_checkpoints()]


def test_the_replaced_checkpoint_comes_back(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    save(run, 2)
    rename = Path.rename

    def interrupted(self, target):
        if target == run.checkpoint(2):
            monkeypatch.undo()
            raise Killed
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(Killed):
        save(run, 2)
    assert whole_checkpoints(run) == ["step_00000002"] and run.newest_checkpoint().name == "step_00000002"
    assert not list(run.checkpoints.glob("*.partial"))


def test_a_half_removed_checkpoint_is_not_listed(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    save(run, 2)
    remove = shutil.rmtree

    def interrupted(folder, ignore_errors=False):
        if folder.name.startswith("step_00000002"):
            next(folder.glob("optimizer.pt")).unlink()
            monkeypatch.undo()
            raise Killed
        remove(folder, ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(Killed):
        save(run, 4)
    assert whole_checkpoints(run) == ["step_00000004"]
    save(run, 6)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["latest", "step_00000006"]


def test_a_signal_right_after_the_save_was_decided_loses_no_step(run_training, monkeypatch, capsys):
    leave_out = StepValues.leave_out

    def signalled(self, seconds):  # the last call after a step
        leave_out(self, seconds)
        calls.append(seconds)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    calls = []
    whole = run_training("whole", checkpoint={"every": 100})
    with monkeypatch.context() as patched:
        patched.setattr(StepValues, "leave_out", signalled)
        run = run_training(checkpoint={"every": 100})
    assert "stopped after step 5, which is saved" in capsys.readouterr().err
    assert whole_checkpoints(RunFolder(run)) == ["step_00000005"]
    run_training("run", "--resume", "latest", checkpoint={"every": 100})
    assert_equal_runs(run, whole)
