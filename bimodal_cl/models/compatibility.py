"""Check that the architecture a user asks for matches the one that a model's folder states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from bimodal_cl.errors import UserError
from bimodal_cl.models.architecture import Architecture

# Neither training options nor what comes with the weights, such as a bias of the head, changes the features of given
# weights.
_TRAINING = ("patch_dropout", "timm_drop", "timm_drop_path")
_UNCOMPARED = {
    "image_size",
    "output_tokens",
    "timm_model_pretrained",
    "hf_model_name",
    "hf_model_pretrained",
    "hf_tokenizer_name",
    "tokenizer_kwargs",
    "tokenizer_mode",
    "pad_id",
    "timm_proj_bias",
    *_TRAINING,
}
_VIT = {"patch_size", "mlp_ratio", "pool_type", "head_width", "norm_kwargs", "act_kwargs"}
_TRANSFORMER = {"vocab_size", "width", "heads", "layers", "mlp_ratio", "pool_type", "norm_kwargs", "proj_type"}


def match_architectures(wanted: Architecture, found: Architecture, what: str, named: str) -> Architecture:
    """Return the architecture to load weights into: `found`, with the training options of `wanted`.

    Where `wanted` was given by its towers and not by name, its context length is used as well, and position embeddings
    are resampled.

    Args:
        wanted: the architecture that the user asks for.
        found: the architecture that the model's folder states.
        what: the model, for messages.
        named: how the user gave `wanted`, such as ``model.name 'ViT-B-32'``, for messages.

    Raises:
        UserError: they differ in any other setting that changes the features.
    """
    if wanted.name is None:
        found = replace(found, text={**found.text, "context_length": wanted.text["context_length"]})
    ours, theirs = _plain(wanted), _plain(found)
    different = [key for key in ours if not _same(ours[key], theirs.get(key))]
    if different:
        shown = ", ".join(f"{key} {theirs.get(key)} and not {ours[key]}" for key in different[:3])
        more = f" (and {len(different) - 3} more)" if len(different) > 3 else ""
        raise UserError(f"{what} does not match {named}: {shown}{more}; give it alone to load it as it is")
    options = {key: wanted.vision[key] for key in _TRAINING if wanted.vision.get(key) is not None}
    return replace(found, name=found.name or wanted.name, vision={**found.vision, **options})


def _plain(architecture: Architecture) -> dict[str, Any]:
    """Return every setting that determines the features, with defaults filled in and equivalent values unified."""
    from open_clip import CLIPTextCfg, CLIPVisionCfg

    vision, text = asdict(CLIPVisionCfg(**architecture.vision)), asdict(CLIPTextCfg(**architecture.text))
    skip_vision, skip_text = set(_UNCOMPARED), set(_UNCOMPARED)
    if vision["timm_model_name"]:
        skip_vision |= {*_VIT, "width", "layers"}
    else:
        skip_vision |= {key for key in vision if key.startswith("timm_")}
        if isinstance(vision["layers"], (list, tuple)):
            vision["layers"] = list(vision["layers"])
            skip_vision |= _VIT
    if text["hf_model_name"]:
        skip_text |= _TRANSFORMER
    else:
        skip_text |= {key for key in text if key.startswith("hf_")}
    if text["pool_type"] == "eos" and text["eos_id"] == text["vocab_size"] - 1:
        text["pool_type"] = "argmax"
    if text["pool_type"] != "eos":
        skip_text.add("eos_id")
    for tower in (vision, text):
        tower["norm_kwargs"] = tower["norm_kwargs"] or {"eps": 1e-5}
    values = {"embed_dim": architecture.embed_dim}
    values |= {f"vision.{key}": value for key, value in vision.items() if key not in skip_vision}
    return values | {f"text.{key}": value for key, value in text.items() if key not in skip_text}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-6)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)
