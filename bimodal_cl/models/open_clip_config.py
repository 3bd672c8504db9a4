"""Convert open_clip's model configs, and towers given by its keys, to architectures."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.models.architecture import Architecture
from bimodal_cl.models.tower_keys import check_image_size, check_tower_keys


def named_architecture(name: str) -> Architecture:
    """Return the architecture of an open_clip config.

    Raises:
        UserError: open_clip has no such config, or it describes a captioning model (CoCa).
    """
    import open_clip

    config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        raise UserError(f"model.name '{name}' is not an open_clip config{did_you_mean(name, open_clip.list_models())}")
    if "multimodal_cfg" in config:
        raise UserError(f"model.name '{name}' is a captioning model (CoCa), not a dual encoder")
    return architecture_from_open_clip(config, name)


def architecture_from_open_clip(
    config: Mapping[str, Any], name: str | None, preprocess: Mapping[str, Any] | None = None, where: str = ""
) -> Architecture:
    """Return the architecture of an open_clip model config (``embed_dim``, ``vision_cfg``, ``text_cfg``, ...).

    Raises:
        UserError: a key is missing or unknown; the message begins with `where`.
    """
    known = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_bias", "custom_text"}
    # These two affect neither the towers nor the weights that are loaded into them.
    ignorable = {"init_logit_scale", "nonscalar_logit_scale"}
    if "multimodal_cfg" in config:
        raise UserError(f"{where}a captioning model (CoCa), not a dual encoder")
    for key in config:
        if key not in known | ignorable:
            raise UserError(f"{where}unknown key '{key}'{did_you_mean(key, known)}")
    if missing := {"embed_dim", "vision_cfg", "text_cfg"} - config.keys():
        raise UserError(f"{where}key '{min(missing)}' is missing")
    architecture = inline_architecture(config["embed_dim"], config["vision_cfg"], config["text_cfg"], where)
    _check_preprocess_keys(preprocess or {}, architecture.image_size, where)
    return replace(
        architecture,
        name=name,
        quick_gelu=bool(config.get("quick_gelu", False)),
        init_logit_bias=config.get("init_logit_bias"),
    ).with_preprocess(preprocess or {}, f"{where}preprocess_cfg.")


def _check_preprocess_keys(preprocess: Mapping[str, Any], image_size: int, where: str) -> None:
    """Refuse the keys of an open_clip ``preprocess_cfg`` that are not supported."""
    known = ("mean", "std", "interpolation", "resize_mode", "fill_color", "size", "mode")
    where = f"{where}preprocess_cfg"
    for key in preprocess:
        if key not in known:
            raise UserError(f"{where}: unknown key '{key}'{did_you_mean(key, known)}")
    mode, size = preprocess.get("mode") or "RGB", preprocess.get("size")
    if mode != "RGB":
        raise UserError(f"{where}.mode must be RGB, got {mode!r}")
    if size is not None and size not in (image_size, [image_size], [image_size] * 2):
        # open_clip uses the model's size and ignores this value.
        warnings.warn(f"{where}.size {size} is not the model's {image_size}, which is used", stacklevel=2)


def inline_architecture(
    embed_dim: int, vision: Mapping[str, Any], text: Mapping[str, Any], where: str = "model."
) -> Architecture:
    """Return the architecture given by `embed_dim` and the keys of the two towers.

    Raises:
        UserError: a key is unknown or a value is out of range; the message begins with `where`.
    """
    from open_clip import CLIPTextCfg, CLIPVisionCfg

    check_tower_keys(vision, text, where)
    if not isinstance(embed_dim, int) or embed_dim < 1:
        raise UserError(f"{where}embed_dim must be a whole number of at least 1, got {embed_dim!r}")
    vision, text = dict(vision), dict(text)
    size = vision.get("image_size", CLIPVisionCfg.image_size)
    if isinstance(size, (list, tuple)):
        if len(set(size)) != 1:
            raise UserError(f"{where}vision.image_size must be square, got {size!r}")
        size = size[0]
    vision["image_size"] = check_image_size(size, f"{where}vision.image_size")
    text.setdefault("context_length", CLIPTextCfg.context_length)
    return Architecture(embed_dim=embed_dim, vision=vision, text=text)
