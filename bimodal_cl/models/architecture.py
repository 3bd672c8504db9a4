"""The architecture of a dual encoder as plain values that fit in a JSON file, without any weights.

The keys of the two towers are open_clip's (``CLIPVisionCfg``, ``CLIPTextCfg``), so that its configs can be used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.json_files import read_mapping
from bimodal_cl.models.tower_keys import check_tower_keys
from bimodal_cl.preprocess import EvalTransform

# The arguments of :class:`EvalTransform`, and the statistics with which its pixels are normalised.
_TRANSFORM_KEYS = tuple(entry.name for entry in fields(EvalTransform) if entry.name != "image_size")
_PREPROCESS_KEYS = ("mean", "std", *_TRANSFORM_KEYS)
_ARCHITECTURE_VERSION = 1


def default_preprocess() -> dict[str, Any]:
    """Return open_clip's default preprocessing: OpenAI's mean and standard deviation, bicubic, centre crop."""
    from open_clip.transform import PreprocessCfg

    open_clips = PreprocessCfg()
    ours = {entry.name: entry.default for entry in fields(EvalTransform) if entry.name != "image_size"}
    return {"mean": list(open_clips.mean), "std": list(open_clips.std), **ours}


@dataclass(frozen=True)
class Architecture:
    """Everything needed to build a dual encoder, except its weights and its tokenizer's files.

    Args:
        embed_dim: width of the shared space.
        vision: keys of open_clip's ``CLIPVisionCfg``; ``image_size`` is always set, to a single number.
        text: keys of open_clip's ``CLIPTextCfg``; ``context_length`` is always set.
        name: the open_clip config that it comes from, if any.
        quick_gelu: whether both towers use QuickGELU, OpenAI's approximation of GELU.
        init_logit_bias: SigLIP's initial logit bias; None where the model has none.
        preprocess: ``mean`` and ``std`` of pixels in [0, 1], and the arguments of :class:`EvalTransform` except
            ``image_size``.
        hf_text_config, hf_vision_config: a Hugging Face tower's configuration, so that rebuilding needs no hub.
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
        """Return a copy for images of another size; the size before the centre crop is scaled in proportion."""
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
        """Return a copy with the preprocessing keys of `overlay`; keys that are not for preprocessing are skipped.

        Raises:
            UserError: a value is out of range; the message begins with `where`.
        """
        known = {key: overlay[key] for key in _PREPROCESS_KEYS if overlay.get(key) is not None}
        for key in known.keys() & {"mean", "std"}:
            known[key] = list(known[key]) if isinstance(known[key], (list, tuple)) else [known[key]] * 3
            if len(known[key]) != 3 or not all(isinstance(value, (int, float)) for value in known[key]):
                raise UserError(f"{where}{key} must be one or three numbers, got {overlay[key]!r}")
            if key == "std" and min(known[key]) <= 0:
                raise UserError(f"{where}std must be above 0, got {overlay[key]!r}")
        if known.get("interpolation") == "random":  # open_clip's name of a training augmentation
            known["interpolation"] = "bicubic"
        architecture = replace(self, preprocess={**self.preprocess, **known})
        try:
            architecture.transform()
        except UserError as error:
            raise UserError(f"{where}{error}") from None
        return architecture

    def transform(self) -> EvalTransform:
        """Return the transform of images in evaluation.

        Raises:
            UserError: a value is out of range.
        """
        values = {key: self.preprocess[key] for key in _TRANSFORM_KEYS if key in self.preprocess}
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return EvalTransform(self.image_size, **values)

    def without_tower_weights(self) -> Architecture:
        """Return a copy whose towers load no weights of their own, as those of the whole model replace them anyway."""
        vision, text = dict(self.vision), dict(self.text)
        if "timm_model_name" in vision:
            vision["timm_model_pretrained"] = False
        if text.get("hf_model_name"):
            text["hf_model_pretrained"] = False
        return replace(self, vision=vision, text=text)

    def write(self, path: Path) -> None:
        """Write the architecture as a JSON file."""
        path.write_text(json.dumps({"version": _ARCHITECTURE_VERSION, **asdict(self)}, indent=2) + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path) -> Architecture:
        """Read what :meth:`write` wrote.

        Raises:
            UserError: the file is missing, is not JSON, or has another version or unknown keys.
        """
        values = read_mapping(path)
        version = values.pop("version", None)
        if version != _ARCHITECTURE_VERSION:
            raise UserError(f"{path}: version {version!r} is not {_ARCHITECTURE_VERSION}")
        known = {entry.name for entry in fields(cls)}
        for key in values:
            if key not in known:
                raise UserError(f"{path}: unknown key '{key}'{did_you_mean(key, known)}")
        if missing := {"embed_dim", "vision", "text"} - values.keys():
            raise UserError(f"{path}: key '{min(missing)}' is missing")
        check_tower_keys(values["vision"], values["text"], where=f"{path}: ")
        overlay = values.pop("preprocess", {})
        for key in overlay:
            if key not in _PREPROCESS_KEYS:
                raise UserError(f"{path}: unknown key 'preprocess.{key}'{did_you_mean(key, _PREPROCESS_KEYS)}")
        return cls(**values).with_preprocess(overlay, f"{path}: preprocess.")
