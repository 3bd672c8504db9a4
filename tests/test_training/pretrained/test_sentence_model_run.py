"""Runs with a pretrained text tower, fine-tuned or locked, train, resume bit for bit, and load without its folder."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from bimodal_cl.models import load_model
from tests.sentence_model import sentence_folder
from tests.test_training.run_files import read_losses

LAST = "encoder.layer.5.output.dense.weight"
TEXT = {"hf_pooler_type": "mean_pooler", "hf_proj_type": "linear", "context_length": 12}
CHANGES = {
    "train": {"num_steps": 2, "num_epochs": None, "global_batch_size": 8},
    "checkpoint": {"every": 1},
}


@pytest.mark.parametrize("lock", [False, True])
def test_a_run_with_a_pretrained_text_tower_resumes_and_loads(run_training, tmp_path, lock):
    changes = {**CHANGES, "model": {"text": {**TEXT, "hf_model_name": str(sentence_folder())}}}
    changes["optim"] = {"learning_rate": 1e-3, "text": {"lock": True} if lock else {"learning_rate": 1e-4}}
    run = run_training("run", **changes)
    latest = run / "checkpoints" / "latest"
    losses, weights = read_losses(run), load_file(latest / "model.safetensors")
    pretrained = load_file(sentence_folder() / "model.safetensors")
    moved = {
        name: (weights[f"text.transformer.{name}"] - tensor).abs().max().item()
        for name, tensor in pretrained.items()
        if f"text.transformer.{name}" in weights and tensor.is_floating_point()
    }
    assert len(moved) == 101  # six blocks of 16 tensors, and five of the embeddings
    if lock:
        assert set(moved.values()) == {0.0}
    else:  # two steps of AdamW from the pretrained weights, at most as long as the tower's learning rate
        assert 0 < max(moved.values()) < 3e-4 and moved[LAST] > 1e-5
    first = load_file(run / "checkpoints" / "step_00000001" / "model.safetensors")
    assert not torch.equal(first["text.proj.weight"], weights["text.proj.weight"])

    run_training("run", "--resume", "step_00000001", **changes)
    assert read_losses(run)[-1] == losses[-1]
    resumed = load_file(latest / "model.safetensors")
    assert all(torch.equal(resumed[name], weights[name]) for name in weights)

    encoder = load_model(run)
    copied = shutil.copytree(latest.resolve(), tmp_path / "elsewhere")
    features = encoder.encode_text(["a red circle", "two blue squares"])
    assert torch.equal(load_model(copied).encode_text(["a red circle", "two blue squares"]), features)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    shutil.rmtree(run)  # half a gigabyte of weights and moments
    shutil.rmtree(copied)
