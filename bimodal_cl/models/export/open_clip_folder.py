"""Write a dual encoder as open_clip loads it: ``local-dir:FOLDER`` or ``create_model(NAME, pretrained=FILE)``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bimodal_cl.errors import one_line
from bimodal_cl.models.architecture import Architecture
from bimodal_cl.models.dual_encoder import DualEncoder
from bimodal_cl.models.export.parity import CAPTIONS, NotExported, require_equal, sample_pixels
from bimodal_cl.models.tokenizers import is_hugging_face, tokenizer_name
from bimodal_cl.models.towers.heads import RESIDUAL
from bimodal_cl.models.weights.file_names import (
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_MODEL_CONFIG,
    OPEN_CLIP_STATE_DICT,
    OPEN_CLIP_WEIGHTS,
    TEXT_CONFIG,
)
from bimodal_cl.models.weights.transformers_loading import quiet_transformers

_INTERPOLATIONS = ("bicubic", "bilinear")
_RESIZE_MODES = ("shortest", "longest", "squash")
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")


def write_open_clip(encoder: DualEncoder, folder: Path, home: str) -> list[str]:
    """Write config, weights in two formats and the tokenizer, and load them with open_clip to compare features.

    Args:
        encoder: the model, in evaluation mode on the CPU.
        folder: where to write; it exists.
        home: where the folder will be, a path or a hub repository. open_clip finds the configuration of a Hugging Face
            text model there, if that model is not on the hub.

    Returns:
        What open_clip does otherwise although it loads the model, one line each.

    Raises:
        NotExported: open_clip has no such towers, or computes other features; what was written is to be deleted.
    """
    architecture = encoder.architecture
    _refuse_unknown_towers(architecture)
    native = has_native_text(architecture)
    _write_weights(encoder, folder, native)
    if is_hugging_face(encoder.tokenizer):
        encoder.tokenizer.save_pretrained(str(folder))  # type: ignore[attr-defined]
    if architecture.hf_text_config is not None:
        hidden = "_name_or_path"  # where the text model once was
        text_config = {key: value for key, value in architecture.hf_text_config.items() if key != hidden}
        _write_json(folder / TEXT_CONFIG, text_config)
    _write_json(folder / OPEN_CLIP_CONFIG, open_clip_config(architecture, str(folder), own_text_config=True))
    _compare(encoder, folder)
    config = open_clip_config(architecture, home)
    _write_json(folder / OPEN_CLIP_CONFIG, config)
    _write_json(folder / OPEN_CLIP_MODEL_CONFIG, config["model_cfg"])
    return _differences(architecture)


def open_clip_config(architecture: Architecture, home: str, own_text_config: bool = False) -> dict[str, Any]:
    """Return the content of ``open_clip_config.json``.

    Args:
        architecture: of the model.
        home: as in :func:`write_open_clip`.
        own_text_config: name `home` for a Hugging Face text model also where it is on the hub.
    """
    return {
        "model_cfg": _model_config(architecture, home, own_text_config),
        "preprocess_cfg": _preprocess_config(architecture),
    }


def builtin_name(architecture: Architecture) -> str | None:
    """Return the name of open_clip's own config that is equal to the architecture, or None."""
    import open_clip

    if architecture.name is None:
        return None
    theirs = dict(open_clip.get_model_config(architecture.name) or {})
    ours = _model_config(architecture, "", False)
    return architecture.name if all(_same(ours.get(key), theirs.get(key)) for key in {*ours, *theirs}) else None


def has_native_text(architecture: Architecture) -> bool:
    """Return whether open_clip's ``CLIP`` can hold the text tower, whose tensors then have no ``text.`` prefix."""
    from open_clip import get_model_config

    text = architecture.text
    if architecture.name is not None and (get_model_config(architecture.name) or {}).get("custom_text"):
        return False
    custom = any(text.get(key) for key in ("hf_model_name", "embed_cls", "no_causal_mask", "proj_bias"))
    return not custom and text.get("proj_type", "linear") == "linear"


def _refuse_unknown_towers(architecture: Architecture) -> None:
    from open_clip.hf_configs import arch_dict

    if architecture.hf_vision_config is not None:
        raise NotExported("open_clip has no tower for transformers' SigLIP")
    if architecture.hf_text_config is not None:
        family = architecture.hf_text_config.get("model_type")
        if family not in arch_dict:
            raise NotExported(f"open_clip has no text tower of the family '{family}', only {', '.join(arch_dict)}")
    for key, kind in (
        ("timm_proj", architecture.vision.get("timm_proj")),
        ("hf_proj_type", architecture.text.get("hf_proj_type")),
    ):
        if kind == RESIDUAL:
            raise NotExported(f"open_clip has no {key} '{RESIDUAL}'")
    preprocess = architecture.preprocess
    if preprocess.get("interpolation", "bicubic") not in _INTERPOLATIONS:
        raise NotExported(f"open_clip does not resize images by '{preprocess['interpolation']}'")
    if preprocess.get("resize_mode", "shortest") not in _RESIZE_MODES:
        raise NotExported(f"open_clip has no resize_mode '{preprocess['resize_mode']}'")


def _model_config(architecture: Architecture, home: str, own_text_config: bool) -> dict[str, Any]:
    text = {key: value for key, value in architecture.text.items() if value is not None}
    options = dict(text.get("tokenizer_kwargs") or {})
    if options.get("clean") == "none":  # our own value
        del options["clean"]
        text["tokenizer_kwargs"] = options
    if name := text.get("hf_model_name"):
        on_hub = not own_text_config and _HUB_NAME.fullmatch(name) and not Path(name).exists()
        text["hf_model_name"] = name if on_hub else home
        text["hf_model_pretrained"] = False
    if name := tokenizer_name(architecture.text):
        text["hf_tokenizer_name"] = name if _HUB_NAME.fullmatch(name) and not Path(name).exists() else home
    vision = {key: value for key, value in architecture.vision.items() if value is not None}
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    config: dict[str, Any] = {"embed_dim": architecture.embed_dim, "vision_cfg": vision, "text_cfg": text}
    if architecture.quick_gelu:
        config["quick_gelu"] = True
    if architecture.init_logit_bias is not None:
        config["init_logit_bias"] = architecture.init_logit_bias
    if not has_native_text(architecture):
        config["custom_text"] = True
    return config


def _preprocess_config(architecture: Architecture) -> dict[str, Any]:
    keys = ("mean", "std", "interpolation", "resize_mode", "fill_color")
    values = {key: architecture.preprocess[key] for key in keys if key in architecture.preprocess}
    return {"size": [architecture.image_size] * 2, "mode": "RGB", **values}


def _write_weights(encoder: DualEncoder, folder: Path, native: bool) -> None:
    from safetensors.torch import save_file

    # Tied tensors are written under each of their names: open_clip requires all of them.
    tensors: dict[str, Tensor] = {}
    for name, tensor in encoder.state_dict().items():
        tensors[name.removeprefix("text.") if native else name] = tensor.detach().clone().contiguous()
    save_file(tensors, folder / OPEN_CLIP_WEIGHTS[0], metadata={"format": "pt"})
    torch.save({"state_dict": tensors}, folder / OPEN_CLIP_STATE_DICT)


@torch.no_grad()
def _compare(encoder: DualEncoder, folder: Path) -> None:
    import open_clip

    try:
        with quiet_transformers():
            theirs = open_clip.create_model(f"local-dir:{folder}").eval()
            tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
            pixels = sample_pixels(encoder)
            images = theirs.encode_image(pixels, normalize=True)
            texts = theirs.encode_text(tokenizer(list(CAPTIONS)), normalize=True)
    except Exception as error:
        raise NotExported(f"open_clip cannot load it ({one_line(error)})") from error
    require_equal("image", images, encoder.encode_image(pixels))
    require_equal("text", texts, encoder.encode_text(CAPTIONS))


def _differences(architecture: Architecture) -> list[str]:
    preprocess = architecture.preprocess
    lines = []
    if preprocess.get("resize_size") not in (None, architecture.image_size) or preprocess.get("max_long_side"):
        lines.append("open_clip resizes images to the model's size at once, and so crops a little less than this model")
    elif preprocess.get("convention") == "transformers":
        lines.append("open_clip rounds resized images by its own rules: pixels may differ by a grey level")
    if architecture.hf_text_config is not None:
        lines.append(
            "open_clip looks up the text model's config.json by text_cfg.hf_model_name, not beside its own config: "
            "after moving the folder, pass it text_cfg with the folder as that name"
        )
    return lines


def _same(ours: Any, theirs: Any) -> bool:
    """Return whether two config values mean the same: a missing key, None and False are alike."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        # Where open_clip's config is silent, its defaults are what we have filled in.
        return all(_same(ours.get(key), theirs.get(key)) for key in {*ours, *theirs} - _FILLED)
    return ours == theirs or (not ours and not theirs)


_FILLED = {"context_length", "hf_model_pretrained", "timm_model_pretrained", "hf_tokenizer_name"}


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
