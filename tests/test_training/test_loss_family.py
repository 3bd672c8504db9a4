"""Every loss trains and resumes from its fragment, and a learned temperature may have its own learning rate."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bimodal_cl import train

FRAGMENTS = Path(__file__).parents[2] / "configs" / "loss"
TRAIN = {"num_steps": 4, "num_epochs": None, "global_batch_size": 32}
OWN_RATE = ["--optim.temperature_learning_rate", "0.05"]


def lines(run: Path) -> list[dict]:
    """The training lines, without what a clock measured."""
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in event.items() if key not in ("seconds", "data_seconds", "samples_per_second")}
        for event in events
        if event["event"] == "train"
    ]


@pytest.mark.filterwarnings("ignore:.*rho")
@pytest.mark.parametrize("fragment", ["siglip", "cyclip", "fastclip_v2", "fastclip_v3"])
def test_fragments_train_and_resume_bit_for_bit(write_config, tmp_path, fragment):
    config = write_config("run", train=TRAIN, checkpoint={"every": 2, "keep_last": 9})
    argv = ["--config", str(config), "--config", str(FRAGMENTS / f"{fragment}.yaml")]
    if fragment == "fastclip_v3":
        argv += OWN_RATE
    assert train.main(argv) == 0
    run, last = tmp_path / "run", tmp_path / "run/checkpoints/latest"
    whole = lines(run)
    assert len(whole) == 4
    first = load_file(last / "loss.safetensors")
    assert train.main([*argv, "--resume", "step_00000002"]) == 0
    assert lines(run) == whole
    again = load_file(last / "loss.safetensors")
    assert first.keys() == again.keys()
    for key, value in first.items():
        assert torch.equal(value, again[key]), key


@pytest.mark.parametrize("flags", [[], OWN_RATE])
def test_the_temperature_has_its_own_constant_rate_if_asked(write_config, tmp_path, flags):
    """With Adam a first step is as long as the rate, and the first rate of the warm-up is half of the peak."""
    config = write_config("run", train={**TRAIN, "num_steps": 1}, loss={"name": "clip", "tau_init": 0.1})
    assert train.main(["--config", str(config), *flags]) == 0
    logit_scale = load_file(tmp_path / "run/checkpoints/latest/loss.safetensors")["logit_scale"]
    step = abs(logit_scale.item() - torch.tensor(10.0).log().item())
    assert step == pytest.approx(0.05 if flags else 0.001, rel=1e-2)
    assert lines(tmp_path / "run")[0]["learning_rate"] == 0.001


def test_a_rate_for_a_temperature_that_is_not_learned_is_refused(write_config, capsys):
    assert train.main(["--config", str(write_config("run")), *OWN_RATE]) == 2
    message = "optim.temperature_learning_rate has no effect: loss 'isogclr' learns nothing by the optimizer"
    assert capsys.readouterr().err.strip() == f"error: {message}"


def test_values_without_effect_are_one_line(write_config, capsys):
    config = write_config("run", loss={"name": "isogclr", "rho": 1.0, "eta_min": 0.001})
    assert train.main(["--config", str(config)]) == 2
    error = capsys.readouterr().err.strip()
    assert error == f"error: {config}: loss: eta_min=0.001 has no effect with eta_schedule='constant': leave it out"
