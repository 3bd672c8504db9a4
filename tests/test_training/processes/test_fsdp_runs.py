"""A run on two processes with FSDP2 is the run of one process, and either continues the other's checkpoints."""

import pytest
import torch
from safetensors.torch import load_file

from bimodal_cl.models.weights.file_names import EMA_FILE
from tests.test_training.conftest import WITHOUT_DROPOUT
from tests.test_training.processes.launching import launch
from tests.test_training.run_files import assert_equal_runs, copy_run, read_log, read_losses

# The learned temperature of clip belongs to the loss, not to the model that is sharded.
CHANGES = {
    "loss": {"name": "clip"},
    "model": WITHOUT_DROPOUT,
    "train": {"num_epochs": None, "num_steps": 20, "evaluate_every": 10},
    "checkpoint": {"every": 10, "keep_last": 9},
    "ema": {"decay": 0.9},
}


@pytest.fixture
def fsdp(write_config, tmp_path):
    """Train on two processes with FSDP; return the run's folder."""

    def run(name, *flags, **changes):
        done = launch(write_config(name, **CHANGES | changes), 2, *flags, sharded=True)
        assert done.returncode == 0, done.stderr
        assert "FutureWarning" not in done.stderr
        return tmp_path / name

    return run


def test_curve_scores_and_files_of_one_process(fsdp, run_training):
    one, two = run_training("one", **CHANGES), fsdp("two")
    losses = read_losses(one)
    assert len(losses) == 20
    assert read_losses(two) == pytest.approx(losses, rel=1e-4)
    norms = [[line["grad_norm"] for line in read_log(run, "train")] for run in (one, two)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)
    scores = [[{k: v for k, v in line.items() if "/" in k} for line in read_log(run, "evaluate")] for run in (one, two)]
    assert len(scores[0]) == 2 and scores[0] == scores[1]

    last = [run / "checkpoints/latest" for run in (one, two)]
    for name in ("model.safetensors", "loss.safetensors", EMA_FILE):
        whole, gathered = (load_file(folder / name) for folder in last)
        assert list(whole) == list(gathered)
        torch.testing.assert_close(gathered, whole, rtol=1e-2, atol=1e-4)
    moments = [torch.load(folder / "optimizer.pt", weights_only=True) for folder in last]
    assert moments[0]["param_groups"] == moments[1]["param_groups"]
    shapes = [
        {
            number: {name: (type(value), value.shape, value.dtype) for name, value in state.items()}
            for number, state in saved["state"].items()
        }
        for saved in moments
    ]
    assert shapes[0] == shapes[1]

    # What one wrote half-way, the other continues.
    shard, whole = copy_run(one, "one_then_two"), copy_run(two, "two_then_one")
    fsdp("one_then_two", "--resume", "step_00000010")
    run_training("two_then_one", "--resume", "step_00000010", **CHANGES)
    for run in (shard, whole):
        assert read_losses(run) == pytest.approx(losses, rel=1e-4)


def test_resume_is_bit_for_bit_with_micro_batches(fsdp):
    """The learned temperature has a group of its own here, and every process encodes three micro-batches."""
    changes = {
        "optim": {"temperature_learning_rate": 2e-4},
        "train": {**CHANGES["train"], "num_steps": 8, "accumulate_features": 3},
        "checkpoint": {"every": 4, "keep_last": 9},
    }
    run = fsdp("run", **changes)
    part = copy_run(run, "part")
    fsdp("part", "--resume", "step_00000004", **changes)
    assert_equal_runs(run, part)
