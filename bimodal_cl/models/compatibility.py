"""Whether the architecture that a user names is the one that a model's own folder says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from bimodal_cl.errors import UserError
from bimodal_cl.models.architecture import Architecture

# Knobs of training, and what travels with the weights anyway: neither changes the features of given weights.
_TRAINING = ("patch_dropout", "timm_drop", "timm_drop_path")
_IDLE = {
    "image_size",
    "output_tokens",
    "timm_model_pretrained",
    "hf_model_name",
    "hf_model_pretrained",
    "hf_tokenizer_name",
    "tokenizer_kwargs",
    "tokenizer_mode",
    "pad_id",
    *_TRAINING,
}
_VIT = {"patch_size", "mlp_ratio", "pool_type", "head_width", "norm_kwargs", "act_kwargs"}
_TRANSFORMER = {"vocab_size", "width", "heads", "layers", "mlp_ratio", "pool_type", "norm_kwargs", "proj_type"}


def agree(wanted: Architecture, found: Architecture, what: str, named: str) -> Architecture:
    """Return the architecture to load weights into: as they bring it, with the training knobs that are wanted.

    Where the towers are spelled out, another context length is taken too: position embeddings are resampled.

    Args:
        wanted: what the user says the model is.
        found: what the model's folder says.
        what: the model, for messages.
        named: how the user said it, such as ``model.name 'ViT-B-32'``.

    Raises:
        UserError: they differ in more than that.
    """
    if wanted.name is None:
        found = replace(found, text={**found.text, "context_length": wanted.text["context_length"]})
    ours, theirs = _plain(wanted), _plain(found)
    different = [key for key in ours if not _same(ours[key], theirs.get(key))]
    if different:
        shown = ", ".join(f"{key} {theirs.get(key)} and not {ours[key]}" for key in different[:3])
        more = f" (and {len(different) - 3} more)" if len(different) > 3 else ""
        raise UserError(f"{what} is another model than {named}: {shown}{more}; give it alone to take it as it is")
    knobs = {key: wanted.vision[key] for key in _TRAINING if wanted.vision.get(key) is not None}
    return replace(found, name=found.name or wanted.name, vision={**found.vision, **knobs})


def _plain(architecture: Architecture) -> dict[str, Any]:
    """Every setting that decides the features, defaults filled in, one spelling for what means the same."""
    from open_clip import CLIPTextCfg, CLIPVisionCfg

    vision, text = asdict(CLIPVisionCfg(**architecture.vision)), asdict(CLIPTextCfg(**architecture.text))
    idle_vision, idle_text = set(_IDLE), set(_IDLE)
    if vision["timm_model_name"]:
        idle_vision |= {*_VIT, "width", "layers"}
    else:
        idle_vision |= {key for key in vision if key.startswith("timm_")}
        if isinstance(vision["layers"], (list, tuple)):
            vision["layers"] = list(vision["layers"])
            idle_vision |= _VIT
    if text["hf_model_name"]:
        idle_text |= _TRANSFORMER
    else:
        idle_text |= {key for key in text if key.startswith("hf_")}
    if text["pool_type"] == "eos" and text["eos_id"] == text["vocab_size"] - 1:
        text["pool_type"] = "argmax"
    if text["pool_type"] != "eos":
        idle_text.add("eos_id")
    for tower in (vision, text):
        tower["norm_kwargs"] = tower["norm_kwargs"] or {"eps": 1e-5}
    values = {"embed_dim": architecture.embed_dim}
    values |= {f"vision.{key}": value for key, value in vision.items() if key not in idle_vision}
    return values | {f"text.{key}": value for key, value in text.items() if key not in idle_text}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-6)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)
