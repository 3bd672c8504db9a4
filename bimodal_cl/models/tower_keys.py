"""Check the keys that describe the two towers: open_clip's ``CLIPVisionCfg`` and ``CLIPTextCfg``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from bimodal_cl.errors import UserError, did_you_mean

# For captioning models, whose towers also return tokens.
_UNSUPPORTED_KEYS = {"output_tokens"}


def check_tower_keys(vision: Mapping[str, Any], text: Mapping[str, Any], where: str) -> None:
    """Refuse keys that open_clip's tower configs do not have.

    Raises:
        UserError: a key is unknown; the message begins with `where` and names the nearest key.
    """
    from open_clip import CLIPTextCfg, CLIPVisionCfg

    for part, given, config in (("vision", vision, CLIPVisionCfg), ("text", text, CLIPTextCfg)):
        if not isinstance(given, Mapping):
            raise UserError(f"{where}{part} must be a mapping, got {type(given).__name__}")
        known = {entry.name for entry in fields(config)} - _UNSUPPORTED_KEYS
        for key in given:
            if key not in known:
                hint = did_you_mean(key, known)
                raise UserError(f"{where}{part}.{key} is not a key of open_clip's {part} config{hint}")


def check_image_size(image_size: Any, what: str) -> int:
    """Return `image_size` if it is an integer of at least 1.

    Raises:
        UserError: it is not; the message begins with `what`.
    """
    if not isinstance(image_size, int) or isinstance(image_size, bool) or image_size < 1:
        raise UserError(f"{what} must be a whole number of pixels of at least 1, got {image_size!r}")
    return image_size


def refuse_unused_keys(vision: Mapping[str, Any], text: Mapping[str, Any]) -> None:
    """Refuse keys that the chosen kind of tower does not read, so that no setting is silently ignored.

    Args:
        vision: keys of open_clip's ``CLIPVisionCfg``.
        text: keys of open_clip's ``CLIPTextCfg``.

    Raises:
        UserError: a key has no effect; the message names it.
    """
    layers = vision.get("layers")
    vision_keys, text_keys = ({key for key, value in keys.items() if value is not None} for keys in (vision, text))
    timm_keys = {key for key in vision_keys if key.startswith("timm_")}
    hf_keys = {key for key in text_keys if key.startswith("hf_")} - {"hf_tokenizer_name"}
    tokenizer_keys = {"context_length", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs"}
    if "timm_model_name" in vision_keys:
        _refuse("vision", vision_keys - timm_keys - {"image_size", "patch_dropout"}, "a timm tower")
    elif isinstance(layers, (list, tuple)):
        _refuse("vision", vision_keys - {"layers", "width", "head_width", "image_size"}, "a ResNet (layers is a list)")
    else:
        _refuse("vision", timm_keys, "a tower without timm_model_name")
    if "hf_model_name" in text_keys:
        _refuse("text", text_keys - hf_keys - tokenizer_keys, "a Hugging Face tower")
    else:
        _refuse("text", hf_keys, "a tower without hf_model_name")


def _refuse(part: str, unused: Iterable[str], tower: str) -> None:
    for key in sorted(unused):
        raise UserError(f"model.{part}.{key} has no effect on {tower}: leave it out")
