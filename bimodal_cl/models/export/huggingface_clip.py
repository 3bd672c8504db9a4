"""Convert a dual encoder of open_clip's own towers to transformers' ``CLIPModel``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor

from bimodal_cl.models.architecture import Architecture
from bimodal_cl.models.dual_encoder import DualEncoder
from bimodal_cl.models.export.parity import NotExported
from bimodal_cl.models.tokenizers import is_hugging_face, vocabulary_size

_LEGACY_EOS_ID = 2  # with this id, transformers pools at the largest token
# Keys that are translated below, and keys without effect on the features of these towers.
_SHARED = {"width", "layers", "mlp_ratio", "norm_kwargs", "act_kwargs"}
_TRANSLATED = {
    "vision": _SHARED | {"image_size", "patch_size", "head_width"},
    "text": _SHARED
    | {"heads", "context_length", "vocab_size", "pool_type", "eos_id", "pad_id"}
    | {"hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode"},
}
_INERT = {"patch_dropout", "output_tokens", "attn_pooler_queries", "attn_pooler_heads"}
_BLOCK_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_NORMS = {
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "text.ln_final": "text_model.final_layer_norm",
}


def build_clip(encoder: DualEncoder) -> Any:
    """Return a ``CLIPModel`` with the model's weights, in evaluation mode.

    Raises:
        NotExported: a tower, or one of its options, that ``CLIPModel`` does not have.
    """
    from transformers import CLIPConfig, CLIPModel

    architecture = encoder.architecture
    _refuse_other_towers(architecture)
    vision, text = _config(encoder)
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=architecture.embed_dim))
    model.load_state_dict(_tensors(encoder.state_dict()))
    return model.eval()


def _refuse_other_towers(architecture: Architecture) -> None:
    from open_clip import CLIPTextCfg, CLIPVisionCfg

    vision, text = architecture.vision, architecture.text
    if vision.get("timm_model_name"):
        raise NotExported(f"CLIPModel has no image tower of timm ('{vision['timm_model_name']}')")
    if isinstance(vision.get("layers"), (list, tuple)):
        raise NotExported("CLIPModel has no ResNet image tower")
    if text.get("hf_model_name"):
        raise NotExported(f"CLIPModel has no text tower of another family ('{text['hf_model_name']}')")
    for part, given, config in (("vision", vision, CLIPVisionCfg), ("text", text, CLIPTextCfg)):
        for entry in fields(config):
            value = given.get(entry.name)
            if value is None or value == entry.default or entry.name in _TRANSLATED[part] | _INERT:
                continue
            raise NotExported(f"CLIPModel has no counterpart of model.{part}.{entry.name} = {value!r}")


def _config(encoder: DualEncoder) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the keys of ``CLIPVisionConfig`` and ``CLIPTextConfig``."""
    from open_clip import CLIPTextCfg, CLIPVisionCfg

    architecture = encoder.architecture
    vision, text = CLIPVisionCfg(**architecture.vision), CLIPTextCfg(**architecture.text)
    if not isinstance(vision.patch_size, int):
        raise NotExported(f"CLIPModel has square patches, not {vision.patch_size}")
    if text.pool_type not in ("argmax", "eos"):
        raise NotExported(f"CLIPModel pools texts at their end, not by pool_type '{text.pool_type}'")
    if text.pool_type == "eos" and text.eos_id == _LEGACY_EOS_ID:
        raise NotExported(f"transformers takes eos_token_id {_LEGACY_EOS_ID} for another pooling")
    quick_gelu = architecture.quick_gelu
    return (
        _shared_keys(vision, quick_gelu, "vision")
        | {
            "num_attention_heads": vision.width // vision.head_width,
            "image_size": architecture.image_size,
            "patch_size": vision.patch_size,
        },
        _shared_keys(text, quick_gelu, "text")
        | {
            "num_attention_heads": text.heads,
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            **_special_tokens(encoder, text),
        },
    )


def _shared_keys(tower: Any, quick_gelu: bool, part: str) -> dict[str, Any]:
    norm, activation = dict(tower.norm_kwargs or {}), dict(tower.act_kwargs or {})
    epsilon = norm.pop("eps", 1e-5)
    if norm or activation not in ({}, {"approximate": "none"}, {"approximate": "tanh"}):
        raise NotExported(f"CLIPModel has no counterpart of model.{part}.{'norm' if norm else 'act'}_kwargs")
    tanh = activation.get("approximate") == "tanh"
    return {
        "hidden_size": tower.width,
        "intermediate_size": int(tower.width * tower.mlp_ratio),
        "num_hidden_layers": tower.layers,
        "layer_norm_eps": epsilon,
        "hidden_act": "quick_gelu" if quick_gelu else "gelu_pytorch_tanh" if tanh else "gelu",
    }


def _special_tokens(encoder: DualEncoder, text: Any) -> dict[str, int | None]:
    """Return the ids of the special tokens; a text is pooled at its first ``eos_token_id``."""
    tokenizer: Any = encoder.tokenizer
    largest = vocabulary_size(tokenizer) - 1
    if not is_hugging_face(tokenizer):
        end = tokenizer.eot_token_id
        if (text.eos_id if text.pool_type == "eos" else largest) != end:
            raise NotExported("the text tower pools at another token than the end of the text")
        return {"bos_token_id": tokenizer.sot_token_id, "eos_token_id": end, "pad_token_id": end}
    end = tokenizer.tokenizer.eos_token_id
    if text.pool_type == "eos":
        end = text.eos_id
    elif end != largest:
        end = _LEGACY_EOS_ID
    inner = tokenizer.tokenizer
    return {"bos_token_id": inner.bos_token_id, "eos_token_id": end, "pad_token_id": inner.pad_token_id}


def _tensors(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the names of a ``CLIPModel``; ``logit_bias`` has none there."""
    tensors = {
        "logit_scale": ours["logit_scale"],
        "vision_model.embeddings.class_embedding": ours["visual.class_embedding"],
        "vision_model.embeddings.position_embedding.weight": ours["visual.positional_embedding"],
        "vision_model.embeddings.patch_embedding.weight": ours["visual.conv1.weight"],
        "visual_projection.weight": ours["visual.proj"].T,
        "text_model.embeddings.token_embedding.weight": ours["text.token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": ours["text.positional_embedding"],
        "text_projection.weight": ours["text.text_projection"].T,
    }
    for part in ("weight", "bias"):
        tensors |= {f"{theirs}.{part}": ours[f"{name}.{part}"] for name, theirs in _NORMS.items()}
        for tower, theirs in (("visual", "vision_model"), ("text", "text_model")):
            tensors |= _block_tensors(ours, f"{tower}.transformer.resblocks", f"{theirs}.encoder.layers", part)
    return tensors


def _block_tensors(ours: Mapping[str, Tensor], source: str, target: str, part: str) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    layer = 0
    while f"{source}.{layer}.ln_1.{part}" in ours:
        for name, theirs in _BLOCK_NAMES.items():
            tensors[f"{target}.{layer}.{theirs}.{part}"] = ours[f"{source}.{layer}.{name}.{part}"]
        joined = ours[f"{source}.{layer}.attn.in_proj_{part}"].chunk(3)
        tensors |= {
            f"{target}.{layer}.self_attn.{letter}_proj.{part}": each for letter, each in zip("qkv", joined, strict=True)
        }
        layer += 1
    return tensors
