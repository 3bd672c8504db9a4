"""Convert a Hugging Face ``CLIPModel`` to a dual encoder: the same network under open_clip's names.

The model is converted rather than wrapped, so that it is saved, trained and exported like every other model.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bimodal_cl.errors import UserError
from bimodal_cl.models.architecture import Architecture
from bimodal_cl.models.assemble import assemble
from bimodal_cl.models.dual_encoder import DualEncoder
from bimodal_cl.models.huggingface.preprocess import read_preprocess
from bimodal_cl.models.huggingface.tokenizer import read_tokenizer_keys
from bimodal_cl.models.open_clip_config import inline_architecture
from bimodal_cl.models.weights.transformers_loading import load_transformers

# Configurations written before 2023 have this wrong id; transformers then pools at the largest token id.
_LEGACY_EOS_ID = 2
# torch's arguments for transformers' names.
_GELU: dict[str, dict[str, str]] = {
    "gelu": {},
    "gelu_pytorch_tanh": {"approximate": "tanh"},
    "gelu_new": {"approximate": "tanh"},
    "gelu_fast": {"approximate": "tanh"},
}
_BLOCK_NAMES = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def load_huggingface_clip(folder: Path, image_size: int | None = None) -> DualEncoder:
    """Load a folder written by ``CLIPModel.save_pretrained``; see :mod:`bimodal_cl.models.huggingface.folder`.

    A folder without a tokenizer gets open_clip's, which has OpenAI's vocabulary.

    Raises:
        UserError: an option that open_clip's towers do not have, or damaged files.
    """
    from open_clip.model import resize_pos_embed
    from transformers import CLIPModel

    model = load_transformers(CLIPModel, folder)
    encoder = assemble(_convert_config(model.config, folder), image_size=image_size)
    tensors = convert_weights(model.state_dict())
    resize_pos_embed(tensors, encoder)
    # A tokenizer with a shorter context leaves positions unused.
    tensors["text.positional_embedding"] = tensors["text.positional_embedding"][: encoder.text.context_length]
    encoder.load_state_dict(tensors)
    return encoder


def _convert_config(config: Any, folder: Path) -> Architecture:
    """Return the architecture of a ``CLIPConfig``."""
    vision, text = config.vision_config, config.text_config
    activations = {vision.hidden_act, text.hidden_act}
    if not activations <= {"quick_gelu", *_GELU} or ("quick_gelu" in activations and len(activations) > 1):
        raise UserError(
            f"{folder}/config.json: hidden_act must be quick_gelu in both towers or one of {', '.join(_GELU)}, got "
            f"{vision.hidden_act} for images and {text.hidden_act} for text"
        )
    if vision.num_channels != 3:
        raise UserError(f"{folder}/config.json: num_channels must be 3, got {vision.num_channels}")
    tokenizer_keys = read_tokenizer_keys(folder, text.max_position_embeddings)
    if tokenizer_keys is not None:  # the tower numbers positions from the left
        tokenizer_keys["tokenizer_kwargs"]["padding_side"] = "right"
    legacy = text.eos_token_id == _LEGACY_EOS_ID
    vision_keys = _shared_keys(vision) | {
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "head_width": vision.hidden_size // vision.num_attention_heads,
    }
    text_keys = _shared_keys(text) | {
        "heads": text.num_attention_heads,
        "vocab_size": text.vocab_size,
        **(tokenizer_keys or {"context_length": text.max_position_embeddings}),
        "pool_type": "argmax" if legacy else "eos",
        "eos_id": text.eos_token_id,
    }
    if tokenizer_keys is None and not legacy and text.eos_token_id != text.vocab_size - 1:
        raise UserError(f"{folder}: has no tokenizer, and open_clip's ends a text with another token")
    architecture = inline_architecture(config.projection_dim, vision_keys, text_keys, f"{folder}/config.json: ")
    architecture = Architecture(
        architecture.embed_dim, architecture.vision, architecture.text, quick_gelu="quick_gelu" in activations
    )
    return architecture.with_preprocess(read_preprocess(folder, "clip", architecture.image_size))


def _shared_keys(tower: Any) -> dict[str, Any]:
    ratio = tower.intermediate_size / tower.hidden_size
    if int(tower.hidden_size * ratio) < tower.intermediate_size:  # open_clip multiplies again and truncates
        ratio = math.nextafter(ratio, math.inf)
    return {
        "width": tower.hidden_size,
        "layers": tower.num_hidden_layers,
        "mlp_ratio": ratio,
        "norm_kwargs": {"eps": tower.layer_norm_eps},
        "act_kwargs": _GELU.get(tower.hidden_act) or None,
    }


def convert_weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a ``CLIPModel``'s tensors under the names of a :class:`DualEncoder`, with q, k and v joined."""
    converted = {
        "logit_scale": tensors["logit_scale"],
        "visual.class_embedding": tensors["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": tensors["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": tensors["vision_model.embeddings.patch_embedding.weight"],
        "visual.proj": tensors["visual_projection.weight"].T,
        "text.token_embedding.weight": tensors["text_model.embeddings.token_embedding.weight"],
        "text.positional_embedding": tensors["text_model.embeddings.position_embedding.weight"],
        "text.text_projection": tensors["text_projection.weight"].T,
    }
    norms = {
        "vision_model.pre_layrnorm": "visual.ln_pre",
        "vision_model.post_layernorm": "visual.ln_post",
        "text_model.final_layer_norm": "text.ln_final",
    }
    for part in ("weight", "bias"):
        for theirs, ours in norms.items():
            converted[f"{ours}.{part}"] = tensors[f"{theirs}.{part}"]
        for theirs, ours in (("vision_model", "visual"), ("text_model", "text")):
            converted |= _convert_blocks(tensors, f"{theirs}.encoder.layers", f"{ours}.transformer.resblocks", part)
    return converted


def _convert_blocks(tensors: dict[str, Tensor], theirs: str, ours: str, part: str) -> dict[str, Tensor]:
    converted = {}
    layer = 0
    while f"{theirs}.{layer}.layer_norm1.{part}" in tensors:
        source, target = f"{theirs}.{layer}", f"{ours}.{layer}"
        for name, new_name in _BLOCK_NAMES.items():
            converted[f"{target}.{new_name}.{part}"] = tensors[f"{source}.{name}.{part}"]
        joined = torch.cat([tensors[f"{source}.self_attn.{letter}_proj.{part}"] for letter in "qkv"])
        converted[f"{target}.attn.in_proj_{part}"] = joined
        layer += 1
    return converted
