"""Every loss trains and resumes from its fragment, and a learned temperature may have its own learning rate."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.test_training.run_files import assert_equal_runs, copy_run, read_log, read_losses

FRAGMENTS = Path(__file__).parents[2] / "configs" / "loss"
TRAIN = {"num_steps": 4, "num_epochs": None, "global_batch_size": 32}
OWN_RATE = ["--optim.temperature_learning_rate", "0.05"]


@pytest.mark.filterwarnings("ignore:.*rho")
@pytest.mark.parametrize("fragment", ["siglip", "cyclip", "fastclip_v2", "fastclip_v3"])
def test_fragments_train_and_resume_bit_for_bit(run_training, fragment):
    flags = ["--config", str(FRAGMENTS / f"{fragment}.yaml"), *(OWN_RATE if fragment == "fastclip_v3" else [])]
    changes = {"train": TRAIN, "checkpoint": {"every": 2, "keep_last": 9}}
    whole = run_training("whole", *flags, **changes)
    assert len(read_losses(whole)) == 4
    part = copy_run(whole, "part")
    run_training("part", *flags, "--resume", "step_00000002", **changes)
    assert_equal_runs(whole, part)


@pytest.mark.parametrize("flags", [[], OWN_RATE])
def test_the_temperature_has_its_own_constant_rate_if_asked(run_training, flags):
    """Adam's first step is as long as the learning rate, which starts the warm-up at half of its peak."""
    run = run_training("run", *flags, train={**TRAIN, "num_steps": 1}, loss={"name": "clip", "tau_init": 0.1})
    logit_scale = load_file(run / "checkpoints/latest/loss.safetensors")["logit_scale"]
    step = abs(logit_scale.item() - torch.tensor(10.0).log().item())
    assert step == pytest.approx(0.05 if flags else 0.001, rel=1e-2)
    assert read_log(run, "train")[0]["learning_rate"] == 0.001


def test_a_resume_with_and_without_that_rate_is_refused(training_error, run_training):
    changes = {"train": {**TRAIN, "num_steps": 1}, "loss": {"name": "clip", "tau_init": 0.1}}
    run_training("run", **changes)
    line = training_error("run", "--resume", "latest", *OWN_RATE, **changes)
    assert "it has 2 parameter groups, and this config makes 3: give optim.temperature_learning_rate" in line


def test_a_rate_for_a_temperature_that_is_not_learned_is_refused(training_error):
    message = "optim.temperature_learning_rate has no effect: loss 'isogclr' learns nothing by the optimizer"
    assert training_error("run", *OWN_RATE) == f"error: {message}"


def test_values_without_effect_are_one_line(training_error, tmp_path):
    error = training_error(loss={"name": "isogclr", "rho": 1.0, "eta_min": 0.001})
    assert (
        error
        == f"error: {tmp_path}/run.yaml: loss: eta_min=0.001 has no effect with eta_schedule='constant': leave it out"
    )
