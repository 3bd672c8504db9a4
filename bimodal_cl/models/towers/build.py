"""Build the two towers: open_clip's own, timm's for images, Hugging Face's for text, or SigLIP's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from bimodal_cl.errors import UserError, did_you_mean, one_line
from bimodal_cl.models.architecture import Architecture
from bimodal_cl.models.locate.hub import why_not_fetched
from bimodal_cl.models.tokenizers import Tokenizer, is_hugging_face, vocabulary_size
from bimodal_cl.models.towers.heads import RESIDUAL, build_image_head
from bimodal_cl.models.towers.huggingface_text import (
    HuggingFaceTextTower,
    build_transformer,
    check_head,
    load_text_config,
)
from bimodal_cl.models.towers.siglip import TEXT_FAMILY, SiglipImageTower, SiglipTextTower
from bimodal_cl.models.towers.timm_file import TimmFile


def build_image_tower(architecture: Architecture, timm_file: TimmFile | None = None) -> tuple[nn.Module, list[str]]:
    """Build the image tower: normalised pixels ``[batch, 3, image_size, image_size]`` to ``[batch, embed_dim]``.

    Args:
        architecture: what to build.
        timm_file: weights of a timm tower.

    Returns:
        The tower, and what to tell the user about its weights.

    Raises:
        UserError: an unknown timm model, weights that cannot be downloaded or do not fit, or keys that contradict each
            other.
    """
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    if architecture.hf_vision_config is not None:
        return SiglipImageTower(architecture.hf_vision_config), []
    vision = architecture.vision
    timm_name = vision.get("timm_model_name")
    if timm_name:
        _check_timm_name(timm_name)
    elif isinstance(vision.get("layers"), (list, tuple)) and architecture.image_size % 32:
        # Its attention pooling has one position per 32 x 32 pixels and would fail on the first image.
        raise UserError(f"model.vision.image_size must be a multiple of 32 for a ResNet, got {architecture.image_size}")
    notes: list[str] = []
    try:
        residual = vision.get("timm_proj") == RESIDUAL  # which open_clip does not know
        known = {**vision, "timm_proj": "linear"} if residual else vision
        tower = _build_vision_tower(architecture.embed_dim, CLIPVisionCfg(**known), architecture.quick_gelu)
        if residual:
            width, drop = tower.head.proj.in_features, vision.get("timm_drop") or 0.0
            tower.head = build_image_head(RESIDUAL, width, architecture.embed_dim, drop)
        if timm_file is not None:  # of the model's own image size; position embeddings are resampled below
            notes.append(timm_file.load_into(tower.trunk, str(timm_name)))
        if timm_name:
            resize_timm_tower(tower, architecture.image_size)
    except UserError:
        raise
    except Exception as error:
        what = f"timm model '{timm_name}'" if timm_name else "model.vision"
        fetched = " with its weights" if timm_name and vision.get("timm_model_pretrained") else ""
        raise UserError(f"{what} cannot be built{fetched} ({why_not_fetched(error)})") from error
    return tower, notes


def _check_timm_name(name: str) -> None:
    """Refuse an unknown timm model.

    Raises:
        UserError: timm has no such model; the message names the nearest one.
    """
    import timm

    if ":" in name or timm.is_model(name):  # a colon: timm's own prefix for a hub repository or a local folder
        return
    raise UserError(f"model.vision.timm_model_name '{name}' is unknown{did_you_mean(name, timm.list_models())}")


def resize_timm_tower(tower: Any, image_size: int) -> None:
    """Adapt a timm tower to images of `image_size`; purely convolutional towers take any size unchanged."""
    if not hasattr(tower.trunk, "set_input_size"):
        tower.image_size = (image_size, image_size)
    elif tuple(tower.trunk.pretrained_cfg["input_size"][1:]) != (image_size, image_size):
        tower.set_input_size(image_size)


def timm_preprocess(tower: Any) -> dict[str, Any]:
    """Return the preprocessing that the weights of a timm tower were trained with, as far as timm states it.

    The share of the image that timm's evaluation crops is left out: a model of pairs sees the whole image.

    Returns:
        Values for :meth:`bimodal_cl.models.architecture.Architecture.with_preprocess`.
    """
    stated = tower.trunk.pretrained_cfg or {}
    modes = {"center": "shortest", "border": "longest", "squash": "squash"}  # timm's names, and open_clip's
    return {
        "mean": stated.get("mean"),
        "std": stated.get("std"),
        "interpolation": stated.get("interpolation"),
        "resize_mode": modes.get(str(stated.get("crop_mode"))),
    }


def with_text_config(architecture: Architecture) -> Architecture:
    """Return the architecture with the configuration of its Hugging Face text tower filled in, if it has one."""
    name = architecture.text.get("hf_model_name")
    if not name or architecture.hf_text_config is not None:
        return architecture
    return replace(architecture, hf_text_config=load_text_config(name))


def build_text_tower(architecture: Architecture, tokenizer: Tokenizer) -> nn.Module:
    """Build the text tower: tokens ``[batch, context_length]`` to ``[batch, embed_dim]``.

    Raises:
        UserError: keys that contradict each other or the tokenizer, or a Hugging Face model that cannot be loaded.
    """
    from open_clip.model import CLIPTextCfg, _build_text_tower

    config = CLIPTextCfg(**architecture.text)
    hf_text = architecture.hf_text_config or {}
    if hf_text.get("model_type") == TEXT_FAMILY:
        _check_vocabulary(architecture, tokenizer, hf_text["vocab_size"])
        return SiglipTextTower(hf_text, tokenizer.tokenizer)  # type: ignore[attr-defined]
    if config.hf_model_name:
        return _build_huggingface_tower(architecture, config, tokenizer)
    _check_vocabulary(architecture, tokenizer, config.vocab_size)
    if is_hugging_face(tokenizer):
        _check_pooling(architecture, config, tokenizer)
    try:
        return _build_text_tower(architecture.embed_dim, config, architecture.quick_gelu)
    except Exception as error:
        raise UserError(f"model.text cannot be built ({one_line(error)})") from error


def _build_huggingface_tower(architecture: Architecture, config: Any, tokenizer: Any) -> nn.Module:
    check_head(config.hf_pooler_type, config.hf_proj_type)
    values = architecture.hf_text_config
    assert values is not None
    _check_vocabulary(architecture, tokenizer, values.get("vocab_size"))
    transformer, width = build_transformer(
        config.hf_model_name, values, config.hf_model_pretrained, pooled=config.hf_pooler_type == "cls_pooler"
    )
    return HuggingFaceTextTower(
        transformer,
        width,
        architecture.embed_dim,
        config.context_length,
        pad_id=tokenizer.tokenizer.pad_token_id,
        eos_id=tokenizer.tokenizer.eos_token_id,
        pooler=config.hf_pooler_type,
        projection=config.hf_proj_type,
    )


def _check_vocabulary(architecture: Architecture, tokenizer: Tokenizer, vocab_size: int | None) -> None:
    """Refuse a tokenizer with more tokens than the tower embeds; open_clip's own configs are trusted."""
    size = vocabulary_size(tokenizer)
    if architecture.name is None and vocab_size is not None and size > vocab_size:
        kind = "the Hugging Face tokenizer" if is_hugging_face(tokenizer) else "open_clip's tokenizer"
        raise UserError(f"the text tower embeds {vocab_size} tokens, but {kind} has {size}: set model.text.vocab_size")


def _check_pooling(architecture: Architecture, config: Any, tokenizer: Any) -> None:
    """Refuse a pooling at a token that is not the tokenizer's end-of-text token."""
    end = tokenizer.tokenizer.eos_token_id
    taken = {"argmax": vocabulary_size(tokenizer) - 1, "eos": config.eos_id}.get(config.pool_type, end)
    if architecture.name is None and taken != end:
        raise UserError(
            f"model.text.pool_type '{config.pool_type}' pools at token {taken}, but the tokenizer ends a text with "
            f"{end}: set pool_type 'eos' and eos_id {end}"
        )
