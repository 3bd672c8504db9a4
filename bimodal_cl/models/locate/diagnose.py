"""Explain why a folder, or a Hugging Face configuration, is not a dual encoder that can be loaded."""

from __future__ import annotations

import re
from pathlib import Path

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.json_files import read_mapping
from bimodal_cl.models.weights.file_names import ARCHITECTURE_FILE, OPEN_CLIP_CONFIG, WEIGHT_SUFFIXES
from bimodal_cl.models.weights.foreign_formats import FOREIGN_SUFFIXES

_TIMM_KEY = "pretrained_cfg"
_IMAGE_FAMILIES = re.compile(r"vision|vit|dino|deit|beit|swin|convnext|resnet|mobilenet|efficientnet|image", re.I)
_DUAL_FAMILIES = re.compile(r"clip|siglip|align|dual|blip|flava|x_clip|groupvit|owl|altclip", re.I)


def refuse_other_family(config: Path) -> None:
    """Refuse a ``config.json`` whose ``model_type`` shows that it does not describe a dual encoder.

    Raises:
        UserError: it describes a single tower or a timm model, or has no ``model_type``; the message names the setting
            that takes such a model.
    """
    values = read_mapping(config)
    family = values.get("model_type")
    if family is None:
        if _TIMM_KEY in values or "architecture" in values:
            name = values.get("architecture", "?")
            raise UserError(
                f"{config}: a timm image model ('{name}'), not a dual encoder: give it as model.vision.timm_model_name"
            )
        raise UserError(f"{config}: key 'model_type' is missing: not the configuration of a Hugging Face model")
    _refuse_single_tower(config, str(family))


def _refuse_single_tower(config: Path, family: str) -> None:
    """Refuse a text tower or an image tower alone; the loader decides on other families."""
    one_tower = family.endswith(("_text_model", "_vision_model"))
    if not one_tower and _DUAL_FAMILIES.search(family):
        return
    if _IMAGE_FAMILIES.search(family):
        kind, key = "an image model alone", "a timm model of the same name can be given as model.vision.timm_model_name"
    else:
        kind, key = "a text model alone", "give it as model.text.hf_model_name"
    raise UserError(f"{config}: model_type '{family}' is {kind}, not a dual encoder such as 'clip' or 'siglip'; {key}")


def explain_folder(folder: Path) -> str:
    """Describe what a folder without a model holds instead."""
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        base = read_mapping(adapter).get("base_model_name_or_path")
        return (
            f"folder '{folder}' holds an adapter (LoRA) of '{base}', not a model: merge it into that one "
            "(peft's merge_and_unload), save it, and give the merged folder"
        )
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return f"folder '{folder}' holds no model: it is empty"
    for path in folder.iterdir():
        if path.suffix in FOREIGN_SUFFIXES:
            kind = FOREIGN_SUFFIXES[path.suffix]
            return f"folder '{folder}' holds no PyTorch model: '{path.name}' is in {kind} format"
    files = [name for name in names if Path(name).suffix in WEIGHT_SUFFIXES]
    if files:
        return f"folder '{folder}' holds weights without a configuration: give the file, such as '{folder / files[0]}'"
    inner = [name for name in names if _is_model(folder / name)]
    hint = f"; did you mean '{folder / inner[0]}'?" if inner else ""
    return (
        f"folder '{folder}' holds no model: neither {ARCHITECTURE_FILE} (a checkpoint), checkpoints/ (a run), "
        f"{OPEN_CLIP_CONFIG} (an export) nor config.json (a Hugging Face CLIP model){hint}"
    )


def _is_model(folder: Path) -> bool:
    marks = (ARCHITECTURE_FILE, "checkpoints", OPEN_CLIP_CONFIG, "config.json")
    return folder.is_dir() and any((folder / mark).exists() for mark in marks)


def explain_missing_weights(folder: Path) -> str:
    """Describe what a Hugging Face folder without weights holds in place of them."""
    for path in sorted(folder.iterdir()):
        if path.suffix in FOREIGN_SUFFIXES:
            return f"'{path.name}' is in {FOREIGN_SUFFIXES[path.suffix]} format, and there is no model.safetensors"
    names = [path.name for path in folder.iterdir()]
    return f"neither model.safetensors nor pytorch_model.bin{did_you_mean('model.safetensors', names)}"
