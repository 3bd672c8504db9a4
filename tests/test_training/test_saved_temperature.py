"""A saved model carries the temperature of its loss, by open_clip's names."""

import json

import pytest
import torch
from safetensors.torch import load_file

from bimodal_cl import train
from bimodal_cl.checkpoint import temperature_to_save
from bimodal_cl.losses import build_loss
from bimodal_cl.models import load_model

SHORT = {"num_steps": 3, "num_epochs": None, "global_batch_size": 32}


def trained(write_config, tmp_path, *flags, **loss):
    """Train three steps; the loaded model, the loss's saved tensors and the last line of training."""
    assert train.main(["--config", str(write_config("run", train=SHORT, loss=loss)), *flags]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["event"] == "train"][-1]
    return load_model(tmp_path / "run"), load_file(tmp_path / "run/checkpoints/latest/loss.safetensors"), last


@pytest.mark.parametrize("name", ["clip", "cyclip", "siglip", "rgcl_g"])
def test_a_learned_temperature_is_that_of_the_loss(write_config, tmp_path, name):
    model, loss, _ = trained(write_config, tmp_path, name=name, tau_init=0.05)
    assert torch.equal(model.logit_scale, loss["logit_scale"])
    assert model.logit_scale.item() != pytest.approx(torch.tensor(20.0).log().item(), abs=1e-5)  # three steps on
    if name == "siglip":
        assert torch.equal(model.logit_bias, loss["logit_bias"])
    else:
        assert model.logit_bias is None
    assert not model.logit_scale.requires_grad


def test_a_bias_is_kept_by_a_resumed_run(write_config, tmp_path):
    trained(write_config, tmp_path, name="siglip")
    again = ["--config", str(tmp_path / "run.yaml"), "--resume", "latest", "--train.num_steps", "5"]
    assert train.main(again) == 0
    loss = load_file(tmp_path / "run/checkpoints/latest/loss.safetensors")
    assert torch.equal(load_model(tmp_path / "run").logit_bias, loss["logit_bias"])


def test_individual_temperatures_are_saved_by_their_mean(write_config, tmp_path):
    model, _, last = trained(write_config, tmp_path, name="isogclr", rho=1.0, tau_init=0.05)
    tau = (last["tau_image"] + last["tau_text"]) / 2
    assert model.logit_scale.exp().item() == pytest.approx(1 / tau, rel=1e-5)


def test_a_fixed_temperature_is_saved_as_it_is():
    loss = build_loss("sogclr", num_images=4, num_texts=4, tau=0.2)
    metrics = {"tau_image": torch.tensor(0.2), "tau_text": torch.tensor(0.2)}
    assert temperature_to_save(loss, metrics)["logit_scale"].exp().item() == pytest.approx(5.0)
