"""What a dual encoder is made of, before any weight exists: plain values that fit in a JSON file.

The keys of the two towers are open_clip's (``CLIPVisionCfg``, ``CLIPTextCfg``), so that its configs are ours.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bimodal_cl.errors import UserError, did_you_mean, one_line
from bimodal_cl.files.text_files import read_text
from bimodal_cl.preprocess import EvalTransform

# Towers that return tokens beside the feature belong to captioning models; ours return the feature alone.
_UNSUPPORTED_KEYS = {"output_tokens"}
# What :class:`EvalTransform` takes, and the statistics of the pixels after it.
_TRANSFORM_KEYS = tuple(entry.name for entry in fields(EvalTransform) if entry.name != "image_size")
_PREPROCESS_KEYS = ("mean", "std", *_TRANSFORM_KEYS)
_ARCHITECTURE_VERSION = 1


def default_preprocess() -> dict[str, Any]:
    """Return open_clip's default: OpenAI's mean and standard deviation (of pixels in [0, 1]), bicubic, centre crop."""
    from open_clip.transform import PreprocessCfg

    open_clips = PreprocessCfg()
    ours = {entry.name: entry.default for entry in fields(EvalTransform) if entry.name != "image_size"}
    return {"mean": list(open_clips.mean), "std": list(open_clips.std), **ours}


@dataclass(frozen=True)
class Architecture:
    """Everything needed to build a dual encoder, apart from its weights and its tokenizer's files.

    Args:
        embed_dim: width of the shared space.
        vision: keys of open_clip's ``CLIPVisionCfg``; ``image_size`` is always there, a single number.
        text: keys of open_clip's ``CLIPTextCfg``; ``context_length`` is always there.
        name: the open_clip config it came from, if any.
        quick_gelu: OpenAI's approximation of GELU in both towers.
        init_logit_bias: SigLIP's initial bias; None where the model has none.
        preprocess: ``mean`` and ``std`` of pixels in [0, 1], and the arguments of :class:`EvalTransform` beside
            ``image_size``.
        hf_text_config, hf_vision_config: a Hugging Face tower's own configuration, so that rebuilding needs no hub.
    """

    embed_dim: int
    vision: dict[str, Any]
    text: dict[str, Any]
    name: str | None = None
    quick_gelu: bool = False
    init_logit_bias: float | None = None
    preprocess: dict[str, Any] = field(default_factory=default_preprocess)
    hf_text_config: dict[str, Any] | None = None
    hf_vision_config: dict[str, Any] | None = None

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return int(self.vision["image_size"])

    def with_image_size(self, image_size: int) -> Architecture:
        """Return a copy for images of another size; what they are resized to before the crop grows with it."""
        ratio = image_size / self.image_size
        lengths = {key: self.preprocess.get(key) for key in ("resize_size", "max_long_side")}
        scaled = {key: max(round(length * ratio), 1) for key, length in lengths.items() if length is not None}
        hf_vision = None if self.hf_vision_config is None else {**self.hf_vision_config, "image_size": image_size}
        return replace(
            self,
            vision={**self.vision, "image_size": image_size},
            preprocess={**self.preprocess, **scaled},
            hf_vision_config=hf_vision,
        )

    def with_preprocess(self, overlay: Mapping[str, Any], where: str = "") -> Architecture:
        """Return a copy with the preprocessing keys that `overlay` sets; other keys in it are not preprocessing.

        Raises:
            UserError: a value out of range; the message begins with `where`.
        """
        known = {key: overlay[key] for key in _PREPROCESS_KEYS if overlay.get(key) is not None}
        for key in known.keys() & {"mean", "std"}:
            known[key] = list(known[key]) if isinstance(known[key], (list, tuple)) else [known[key]] * 3
            if len(known[key]) != 3 or not all(isinstance(value, (int, float)) for value in known[key]):
                raise UserError(f"{where}{key} must be one or three numbers, got {overlay[key]!r}")
            if key == "std" and min(known[key]) <= 0:
                raise UserError(f"{where}std must be above 0, got {overlay[key]!r}")
        if known.get("interpolation") == "random":  # open_clip's word for a training augmentation
            known["interpolation"] = "bicubic"
        architecture = replace(self, preprocess={**self.preprocess, **known})
        try:
            architecture.transform()
        except UserError as error:
            raise UserError(f"{where}{error}") from None
        return architecture

    def transform(self) -> EvalTransform:
        """Return what evaluation does to an image.

        Raises:
            UserError: a value out of range.
        """
        values = {key: self.preprocess[key] for key in _TRANSFORM_KEYS if key in self.preprocess}
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return EvalTransform(self.image_size, **values)

    def without_tower_weights(self) -> Architecture:
        """Return a copy whose towers start random: weights for the whole model are loaded over them anyway."""
        vision, text = dict(self.vision), dict(self.text)
        if "timm_model_name" in vision:
            vision["timm_model_pretrained"] = False
        if text.get("hf_model_name"):
            text["hf_model_pretrained"] = False
        return replace(self, vision=vision, text=text)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps({"version": _ARCHITECTURE_VERSION, **asdict(self)}, indent=2) + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path) -> Architecture:
        """Read what :meth:`write` wrote.

        Raises:
            UserError: the file is missing, is no JSON, has another version or other keys.
        """
        values = read_json(path)
        version = values.pop("version", None)
        if version != _ARCHITECTURE_VERSION:
            raise UserError(f"{path}: version {version!r} is not {_ARCHITECTURE_VERSION}")
        known = {entry.name for entry in fields(cls)}
        for key in values:
            if key not in known:
                raise UserError(f"{path}: unknown key '{key}'{did_you_mean(key, known)}")
        if missing := {"embed_dim", "vision", "text"} - values.keys():
            raise UserError(f"{path}: key '{min(missing)}' is missing")
        check_towers(values["vision"], values["text"], where=f"{path}: ")
        overlay = values.pop("preprocess", {})
        for key in overlay:
            if key not in _PREPROCESS_KEYS:
                raise UserError(f"{path}: unknown key 'preprocess.{key}'{did_you_mean(key, _PREPROCESS_KEYS)}")
        return cls(**values).with_preprocess(overlay, f"{path}: preprocess.")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON mapping.

    Raises:
        UserError: the file cannot be read or holds something else.
    """
    try:
        values = json.loads(read_text(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise UserError(f"{path}: no valid JSON ({one_line(error)})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping, got {type(values).__name__}")
    return values


def nearest(name: str, choices: Iterable[str], only_near: bool = False) -> str:
    """Return the hint of :func:`did_you_mean` whatever the case of the letters; `only_near`: no list of choices."""
    by_lower = {choice.lower(): choice for choice in choices}
    hint = did_you_mean(name.lower(), by_lower)
    if match := re.fullmatch(r"; did you mean '(.*)'\?", hint):
        return f"; did you mean '{by_lower[match[1]]}'?"
    return "" if only_near else did_you_mean(name, by_lower.values())


def named_architecture(name: str) -> Architecture:
    """Return the architecture of an open_clip config.

    Raises:
        UserError: open_clip has no such config, or it is one of a captioning model (CoCa).
    """
    import open_clip

    config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        raise UserError(f"model.name '{name}' is no open_clip config{nearest(name, open_clip.list_models())}")
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
    # These two change neither the towers nor what is loaded into them.
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
    """Refuse the keys of an open_clip ``preprocess_cfg`` that we could not follow."""
    known = ("mean", "std", "interpolation", "resize_mode", "fill_color", "size", "mode")
    where = f"{where}preprocess_cfg"
    for key in preprocess:
        if key not in known:
            raise UserError(f"{where}: unknown key '{key}'{did_you_mean(key, known)}")
    mode, size = preprocess.get("mode") or "RGB", preprocess.get("size")
    if mode != "RGB":
        raise UserError(f"{where}.mode must be RGB, got {mode!r}")
    if size is not None and size not in (image_size, [image_size], [image_size] * 2):
        # open_clip takes the model's size whatever stands here.
        warnings.warn(f"{where}.size {size} is not the model's {image_size}, which is used", stacklevel=2)


def inline_architecture(
    embed_dim: int, vision: Mapping[str, Any], text: Mapping[str, Any], where: str = "model."
) -> Architecture:
    """Return the architecture spelled out by `embed_dim` and the two towers' keys.

    Raises:
        UserError: a key is unknown, or a value out of range; the message begins with `where`.
    """
    from open_clip import CLIPTextCfg, CLIPVisionCfg

    check_towers(vision, text, where)
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


def refuse_idle_keys(architecture: Architecture) -> None:
    """Refuse keys that the chosen kind of tower does not read, so that nothing a user sets is ignored.

    Raises:
        UserError: naming the key.
    """
    vision, text = (
        {key for key, value in keys.items() if value is not None} for keys in (architecture.vision, architecture.text)
    )
    timm_keys = {key for key in vision if key.startswith("timm_")}
    hf_keys = {key for key in text if key.startswith("hf_")} - {"hf_tokenizer_name"}
    tokenizer_keys = {"context_length", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs"}
    if "timm_model_name" in vision:
        _refuse("vision", vision - timm_keys - {"image_size", "patch_dropout"}, "a timm tower")
    elif isinstance(architecture.vision.get("layers"), (list, tuple)):
        _refuse("vision", vision - {"layers", "width", "head_width", "image_size"}, "a ResNet (layers is a list)")
    else:
        _refuse("vision", timm_keys, "a tower without timm_model_name")
    if "hf_model_name" in text:
        _refuse("text", text - hf_keys - tokenizer_keys, "a Hugging Face tower")
    else:
        _refuse("text", hf_keys, "a tower without hf_model_name")


def _refuse(part: str, idle: Iterable[str], tower: str) -> None:
    for key in sorted(idle):
        raise UserError(f"model.{part}.{key} has no effect on {tower}: leave it out")


def check_image_size(image_size: Any, what: str) -> int:
    """Return `image_size` if it is a whole number of at least 1.

    Raises:
        UserError: it is not; the message begins with `what`.
    """
    if not isinstance(image_size, int) or isinstance(image_size, bool) or image_size < 1:
        raise UserError(f"{what} must be a whole number of pixels of at least 1, got {image_size!r}")
    return image_size


def check_towers(vision: Mapping[str, Any], text: Mapping[str, Any], where: str) -> None:
    """Refuse keys that open_clip's tower configs do not have, naming the nearest one.

    Raises:
        UserError: an unknown key; the message begins with `where`.
    """
    from open_clip import CLIPTextCfg, CLIPVisionCfg

    for part, given, config in (("vision", vision, CLIPVisionCfg), ("text", text, CLIPTextCfg)):
        if not isinstance(given, Mapping):
            raise UserError(f"{where}{part} must be a mapping, got {type(given).__name__}")
        known = {entry.name for entry in fields(config)} - _UNSUPPORTED_KEYS
        for key in given:
            if key not in known:
                raise UserError(f"{where}{part}.{key} is no key of open_clip's {part} config{did_you_mean(key, known)}")
