"""Joined models are ordinary ones: they are exported, and a training starts from them."""

from __future__ import annotations

import shutil

import pytest
import torch

from bimodal_cl.models import build_model, load_model
from eval.cli import main
from tests.test_models.features.small_heads import make
from tests.test_models.small_models import CAPTIONS


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@torch.no_grad()
def test_open_clip_loads_the_export_of_a_joined_model(kind, tmp_path):
    import open_clip

    made = make(tmp_path, vision={"timm_proj": kind}, text={"hf_proj_type": kind})
    folder = tmp_path / "export"
    assert main(["export", str(made.folder), "--to", str(folder)]) == 0  # it compares the features itself
    theirs = open_clip.create_model(f"local-dir:{folder}").eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(CAPTIONS)
    pixels = made.towers.encoder.normalized(made.pixels)
    expected = made.heads.encode_image(made.images)
    torch.testing.assert_close(theirs.encode_image(pixels, normalize=True), expected, atol=1e-5, rtol=0)
    expected = made.heads.encode_text(made.texts)
    torch.testing.assert_close(theirs.encode_text(tokens, normalize=True), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("vision", "text", "key"), [("residual", "linear", "timm_proj"), ("mlp", "residual", "hf_proj_type")]
)
@torch.no_grad()
def test_open_clip_has_no_residual_head(vision, text, key, tmp_path, capsys):
    """The export says so in a line, and is one for ``load_model`` alone, which needs no towers any more."""
    made = make(tmp_path, vision={"timm_proj": vision}, text={"hf_proj_type": text})
    assert main(["export", str(made.folder), "--to", str(tmp_path / "export")]) == 0
    assert f"  not for open_clip: open_clip has no {key} 'residual'\n" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "towers")
    exported = load_model(tmp_path / "export").encode_text(CAPTIONS)
    torch.testing.assert_close(exported, made.heads.encode_text(made.texts), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["linear", "mlp", "residual"])
@torch.no_grad()
def test_a_training_starts_from_a_joined_model(kind, tmp_path):
    """As ``model.pretrained`` does it: alone, in another image size, and under a description of the same towers."""
    made = make(tmp_path, vision={"timm_proj": kind}, text={"hf_proj_type": kind})
    expected = made.heads.encode_image(made.images)
    alone = build_model(pretrained=str(made.folder)).eval()
    torch.testing.assert_close(alone.encode_image(made.pixels), expected, atol=1e-5, rtol=0)
    described = build_model(
        pretrained=str(made.folder),
        embed_dim=16,
        vision={
            "timm_model_name": "test_resnet",
            "timm_pool": "avg",
            "timm_proj": kind,
            "timm_drop": 0.1,
            "image_size": 32,
        },
        text={
            "hf_model_name": str(tmp_path / "source"),
            "hf_pooler_type": "mean_pooler",
            "hf_proj_type": kind,
            "context_length": 12,
        },
    ).eval()
    torch.testing.assert_close(described.encode_image(made.pixels), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(described.encode_text(CAPTIONS), alone.encode_text(CAPTIONS), atol=1e-6, rtol=0)
    larger = build_model(pretrained=str(made.folder), image_size=64)
    assert larger.image_size == 64 and larger.encode_text(CAPTIONS).shape == (3, 16)
    larger.save(tmp_path / "saved")  # as an ordinary model, which needs no towers
    assert load_model(tmp_path / "saved").image_size == 64
