"""A run whose text tower is a real pretrained sentence model trains, resumes bit for bit, and loads without it."""

import shutil

import torch
from safetensors.torch import load_file

from bimodal_cl.models import load_model
from tests.sentence_model import sentence_folder
from tests.test_training.run_files import read_losses

TOWER = "text.transformer.encoder.layer.5.output.dense.weight"
TEXT = {"hf_pooler_type": "mean_pooler", "hf_proj_type": "linear", "context_length": 12}
CHANGES = {
    "train": {"num_steps": 2, "num_epochs": None, "global_batch_size": 8},
    "checkpoint": {"every": 1},
    "optim": {"learning_rate": 1e-4},
}


def test_a_run_with_a_pretrained_text_tower_resumes_and_loads(run_training, tmp_path):
    model = {"text": {**TEXT, "hf_model_name": str(sentence_folder())}}
    run = run_training("run", model=model, **CHANGES)
    latest = run / "checkpoints" / "latest"
    losses, weights = read_losses(run), load_file(latest / "model.safetensors")
    pretrained = load_file(sentence_folder() / "model.safetensors")[TOWER.removeprefix("text.transformer.")]
    moved = (weights[TOWER] - pretrained).abs().max()
    assert 0 < moved < 1e-3  # AdamW's two steps from the pretrained weights, not from random ones

    run_training("run", "--resume", "step_00000001", model=model, **CHANGES)
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
