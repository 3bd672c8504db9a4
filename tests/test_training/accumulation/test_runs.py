"""Whole trainings with ``train.accumulate_features``: on two processes, resumed, and with batch norms."""

from functools import partial

import pytest
from accelerate.state import AcceleratorState

from tests.test_training.conftest import SMALL, WITHOUT_DROPOUT
from tests.test_training.processes.launching import launch
from tests.test_training.run_files import assert_equal_runs, read_losses

FOUR = {"accumulate_features": 4}


def test_resume_equals_no_interruption(run_training):
    """The towers have patch dropout."""
    run = partial(run_training, train=FOUR, checkpoint={"every": 3, "keep_last": 9})
    whole, part = run("whole"), run("part")
    assert_equal_runs(whole, part)
    for step in (3, 6):
        run("part", "--resume", f"step_{step:08d}")
        assert_equal_runs(whole, part)


@pytest.mark.parametrize("loss", [{"name": "isogclr", "rho": 1.0}, {"name": "clip"}], ids=lambda loss: loss["name"])
def test_a_run_in_micro_batches_equals_one_in_whole_batches(run_training, loss):
    run = partial(run_training, loss=loss, model=WITHOUT_DROPOUT, data={"val": None})
    whole, cached = read_losses(run("whole")), read_losses(run("cached", train=FOUR))
    assert len(whole) == 10
    assert cached == pytest.approx(whole, rel=1e-4)


def test_two_processes_in_micro_batches_equal_one_process(run_training, write_config, tmp_path):
    changes = {"loss": {"name": "clip"}, "model": WITHOUT_DROPOUT}
    run_training("on_1", **changes)
    done = launch(write_config("on_2", **changes, train=FOUR), 2)
    assert done.returncode == 0, done.stderr
    one, two = (read_losses(tmp_path / f"on_{count}") for count in (1, 2))
    assert two == pytest.approx(one, rel=1e-4)


@pytest.fixture
def another_precision():
    """Let Accelerate take another precision than that of the tests before, and of those after."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_bf16_runs_in_micro_batches(run_training, another_precision):
    run = partial(run_training, model=WITHOUT_DROPOUT, data={"val": None})
    whole = read_losses(run("whole", train={"precision": "bf16"}))
    cached = read_losses(run("cached", train={"precision": "bf16", **FOUR}))
    assert cached == pytest.approx(whole, rel=0.05)


def test_a_batch_that_micro_batches_cannot_share_is_refused(training_error):
    line = training_error(train={"accumulate_features": 5})
    assert "train.accumulate_features=5 does not divide the 72 pairs of a process" in line
    assert "use train.accumulate_features=6 or train.global_batch_size=70" in line


def test_batch_norms_are_warned_about(run_training, capsys):
    vision = {"timm_model_name": "test_resnet", "timm_model_pretrained": False}
    model = {**SMALL["model"], "vision": vision}
    one_step = {"num_epochs": None, "num_steps": 1, "global_batch_size": 8, **FOUR}
    run_training(model=model, train=one_step, data={"val": None}, optim={"warmup_steps": 0})
    lines = capsys.readouterr().err.splitlines()
    assert sum("batch norms take their statistics from micro-batches of 2 pairs" in line for line in lines) == 1
