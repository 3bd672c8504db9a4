"""Small towers with saved heads, without training."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bimodal_cl.files.checksums import hash_files
from bimodal_cl.models import build_model
from bimodal_cl.models.features.heads import FeatureHeads, TowersReference
from bimodal_cl.models.features.towers import LockedTowers
from bimodal_cl.models.weights.file_names import WEIGHTS_FILE
from tests.test_models.small_models import CAPTIONS, text_folder


class Made(NamedTuple):
    """Saved heads, and what they give on the features of their towers."""

    folder: Path
    towers: LockedTowers
    heads: FeatureHeads
    pixels: Tensor
    images: Tensor
    texts: Tensor


def make(folder: Path, family: str = "bert", vision: dict | None = None, text: dict | None = None) -> Made:
    """Build towers, standardise by moments far from 0 and 1, draw heads, and save both."""
    torch.manual_seed(0)
    source = text_folder(folder / "source", family)
    image = {"timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "linear", "image_size": 32}
    text = {"hf_model_name": str(source), "hf_pooler_type": "mean_pooler", "hf_proj_type": "linear", **(text or {})}
    encoder = build_model(embed_dim=16, vision=image | (vision or {}), text={"context_length": 12} | text)
    for name, parameter in encoder.named_parameters():
        if "norm" in name.lower() or (name.startswith("text.") and parameter.ndim > 1):
            torch.nn.init.normal_(parameter, 0.5 if parameter.ndim == 1 else 0.0, 0.3)
    encoder.save(folder / "towers")
    towers = LockedTowers(encoder, "towers")
    pixels = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        images, texts = towers.encode_image(pixels), towers.encode_text(encoder.tokenize(CAPTIONS))
    moments = {
        "image_mean": torch.randn(towers.image_width).double(),
        "image_variance": torch.rand(towers.image_width).double() + 0.1,
        "text_mean": torch.randn(towers.text_width).double(),
        "text_variance": torch.rand(towers.text_width).double() + 0.1,
    }
    reference = TowersReference(str(folder / "towers"), hash_files(folder / "towers" / WEIGHTS_FILE), towers.text_norm)
    heads = FeatureHeads(encoder.architecture, reference, moments).eval()
    for parameter in heads.parameters():
        if parameter.ndim:
            torch.nn.init.normal_(parameter, std=0.3)
    heads.save(folder / "heads")
    return Made(folder / "heads", towers, heads, pixels, images, texts)
