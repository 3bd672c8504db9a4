"""Small dual encoders with each family of towers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bimodal_cl.models import DualEncoder, build_model
from bimodal_cl.models.huggingface.folder import load_huggingface
from tests.test_models.huggingface.folders import write_siglip, write_unigram
from tests.test_models.small_models import text_folder

VIT = {"layers": 3, "width": 64, "patch_size": 16}
RESNET = {"layers": [1, 2, 1, 1], "width": 16}
TRANSFORMER = {"context_length": 12, "width": 32, "heads": 2, "layers": 2}
TIMM = {
    "timm_resnet": {"timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "linear"},
    "timm_classifier": {"timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": ""},
    "timm_vit": {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "mlp", "timm_drop_path": 0.5},
    "timm_convnext": {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear"},
}
TEXTS = ("bert", "roberta", "distilbert", "t5")

# family: (tower, number of its layers but the head, groups that a lock counts, a name in the layer before the head)
FAMILIES: dict[str, tuple[str, int, int, str]] = {
    "vit": ("visual", 4, 5, "ln_post.weight"),
    "resnet": ("visual", 6, 7, "layer4.0.bn3.weight"),
    "timm_resnet": ("visual", 5, 5, "trunk.layer4.0.bn2.weight"),
    "timm_classifier": ("visual", 5, 5, "trunk.layer4.0.bn2.weight"),
    "timm_vit": ("visual", 7, 7, "trunk.norm.weight"),
    "timm_convnext": ("visual", 11, 11, "trunk.head.norm.weight"),
    "siglip_image": ("visual", 3, 4, "transformer.post_layernorm.weight"),
    "transformer": ("text", 3, 4, "ln_final.weight"),
    "bert": ("text", 3, 3, "transformer.encoder.layer.1.output.LayerNorm.weight"),
    "roberta": ("text", 3, 3, "transformer.encoder.layer.1.output.LayerNorm.weight"),
    "distilbert": ("text", 3, 3, "transformer.transformer.layer.1.output_layer_norm.weight"),
    "t5": ("text", 3, 3, "transformer.final_layer_norm.weight"),
    "siglip_text": ("text", 3, 4, "transformer.final_layer_norm.weight"),
}


def build_family(family: str, folder: Path) -> DualEncoder:
    """Build a dual encoder with a tower of a family, in training mode, always with the same weights."""
    torch.manual_seed(0)
    if family.startswith("siglip"):
        tokenizer = write_unigram(folder / "siglip")
        write_siglip(folder / "siglip", len(tokenizer))
        return load_huggingface(folder / "siglip").train()
    vision: dict[str, Any] = TIMM.get(family, RESNET if family == "resnet" else VIT)
    text: dict[str, Any] = TRANSFORMER
    if family in TEXTS:
        text = {"hf_model_name": str(text_folder(folder / family, family)), "context_length": 12}
        text |= {"hf_pooler_type": "mean_pooler", "hf_proj_type": "linear"}
    size = 64 if family == "resnet" else 32
    return build_model(embed_dim=16, vision=vision, text=text, image_size=size)


def encode(model: DualEncoder, modality: str, num_pairs: int = 4) -> torch.Tensor:
    """Return features of a fixed batch of one modality."""
    if modality == "text":
        return model.encode_text(["a dog", "a red cat", "blue", "a dog a dog"][:num_pairs])
    pixels = torch.randint(0, 256, (num_pairs, 3, model.image_size, model.image_size), dtype=torch.uint8)
    return model.encode_image(pixels)
