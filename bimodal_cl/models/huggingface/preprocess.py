"""Translate a Hugging Face folder's image preprocessing; an option that is not supported is refused by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from bimodal_cl.errors import UserError
from bimodal_cl.files.json_files import read_mapping
from bimodal_cl.models.architecture import default_preprocess

# Keys that do not change the pixels of an RGB image.
_INERT = {
    *("image_processor_type", "feature_extractor_type", "processor_class", "_valid_processor_keys", "_name_or_path"),
    *("data_format", "input_data_format", "return_tensors", "device", "disable_grouping", "do_convert_rgb"),
    *("default_to_square", "pad_size", "transformers_version", "use_fast", "model_input_names"),
}
_READ = {
    *("do_resize", "size", "resample", "do_center_crop", "crop_size"),
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
}
# Defaults of transformers' classes; `default_to_square`: a number as `size` is both sides, not the shortest edge.
_SHARED = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
_SWITCHES = ("do_resize", "do_rescale", "do_normalize", "do_center_crop")
_HALF = {"image_mean": 0.5, "image_std": 0.5, "do_center_crop": False}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "CLIPImageProcessor": {"resample": 3, "do_center_crop": True, "default_to_square": False},
    "SiglipImageProcessor": {"resample": 3, "default_to_square": False, **_HALF},
    "ViTImageProcessor": {"resample": 2, "default_to_square": True, **_HALF},
}
_OF_FAMILY = {"clip": "CLIPImageProcessor", "siglip": "SiglipImageProcessor"}
_DEFAULT_SIDE = 224
_SIZES = (
    {"height", "width"},
    {"shortest_edge"},
    {"shortest_edge", "longest_edge"},
    {"max_height", "max_width"},
)


def read_preprocess(folder: Path, family: str, image_size: int) -> dict[str, Any]:
    """Return the keys of ``preprocess`` of an ``Architecture`` that give transformers' pixels.

    Args:
        folder: the model's folder.
        family: ``clip`` or ``siglip``, whose defaults apply where no file sets them.
        image_size: side of the images that the model takes, pixels.

    Raises:
        UserError: a key is not supported, or gives images of another size; the message names the file and the key.
    """
    values, where = _find_values(folder)
    for key, value in values.items():
        if key not in _INERT | _READ and value is not None and value is not False:
            raise UserError(f"{where}{key} = {value!r} is not supported")
    options = {**_SHARED, **_class_defaults(values, family, where)}
    # null turns a step off, and leaves any other key at its default.
    options |= {key: value for key, value in values.items() if value is not None or key in _SWITCHES}
    return {
        **_read_resize(options, image_size, where),
        **_read_statistics(options, where),
        "convention": "transformers",
    }


def _find_values(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the image processor's keys, and a prefix for messages; files are tried in transformers' order."""
    path = folder / "processor_config.json"
    if path.is_file():
        values = read_mapping(path).get("image_processor")
        if isinstance(values, dict):
            return values, f"{path}: image_processor."
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return read_mapping(path), f"{path}: "
    warnings.warn(f"{folder}: no preprocessor_config.json, so its family's usual preprocessing is used", stacklevel=2)
    return {}, f"{path}: "


def _class_defaults(values: Mapping[str, Any], family: str, where: str) -> dict[str, Any]:
    given = next((key for key in ("image_processor_type", "feature_extractor_type") if values.get(key)), None)
    name = str(values[given]) if given else _OF_FAMILY[family]
    name = name.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    if name not in _DEFAULTS:
        raise UserError(f"{where}{given} = {name!r} is not one of {', '.join(_DEFAULTS)}")
    return {**_DEFAULTS[name], "squash_by_default": name != "CLIPImageProcessor"}


def _read_resize(options: Mapping[str, Any], image_size: int, where: str) -> dict[str, Any]:
    """Return the transform's keys for resizing, after checking that the result is a square of the model's size."""
    resample = options["resample"]
    names = [filter_.name.lower() for filter_ in Image.Resampling]
    filters: dict[Any, str] = dict(zip([*Image.Resampling, *names], [*names, *names], strict=True))
    if resample not in filters:
        raise UserError(
            f"{where}resample = {resample!r} is not one of Pillow's filters: 0 to 5, or a name such as 'bicubic'"
        )
    transform = {"interpolation": filters[resample], **_read_mode(options, image_size, where)}
    if options["do_center_crop"]:
        crop = _read_size(options.get("crop_size", image_size), "crop_size", True, where)
        if set(crop) != {"height", "width"} or set(crop.values()) != {image_size}:
            raise UserError(f"{where}crop_size = {crop} is not the model's image_size, {image_size} x {image_size}")
        return transform
    if transform["resize_mode"] == "none":
        raise UserError(f"{where}do_resize = False without do_center_crop leaves images of any size")
    if transform["resize_mode"] != "squash":
        raise UserError(f"{where}do_center_crop = False leaves images that are not square: give size height and width")
    if transform["resize_size"] != image_size:
        raise UserError(f"{where}size = {transform['resize_size']} is not the model's image_size, {image_size}")
    return transform


def _read_mode(options: Mapping[str, Any], image_size: int, where: str) -> dict[str, Any]:
    if not options["do_resize"]:
        return {"resize_mode": "none"}
    if "size" in options:
        size = _read_size(options["size"], "size", options["default_to_square"], where)
    else:
        side = _DEFAULT_SIDE if "crop_size" in options else image_size
        size = _read_size(side, "size", options["squash_by_default"], where)
    if "shortest_edge" in size:
        limit = {"max_long_side": size["longest_edge"]} if "longest_edge" in size else {}
        return {"resize_mode": "shortest", "resize_size": size["shortest_edge"], **limit}
    if len(set(size.values())) != 1:
        raise UserError(f"{where}size = {size} is not square")
    return {"resize_mode": "squash" if "height" in size else "longest", "resize_size": next(iter(size.values()))}


def _read_size(value: Any, key: str, square: bool, where: str) -> dict[str, int]:
    """Return a size, in any of the forms that transformers has written, as a mapping."""
    if isinstance(value, Mapping):
        size = {name: length for name, length in value.items() if length is not None}
    elif isinstance(value, (list, tuple)) and len(value) == 2:
        size = {"height": value[0], "width": value[1]}
    else:
        size = {"height": value, "width": value} if square else {"shortest_edge": value}
    if set(size) not in _SIZES or not all(type(length) is int and length >= 1 for length in size.values()):
        raise UserError(
            f"{where}{key} = {value!r} is not a size: height and width, shortest_edge (and longest_edge), or "
            "max_height and max_width, in pixels"
        )
    return size


def _read_statistics(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return mean and standard deviation of pixels in [0, 1], adjusted for a rescaling by another factor."""
    factor = options["rescale_factor"] if options["do_rescale"] else 1
    if not isinstance(factor, (int, float)) or not factor > 0:
        raise UserError(f"{where}rescale_factor = {factor!r} is not above 0")
    scale = 255 * factor  # the largest pixel after rescaling
    if not options["do_normalize"]:
        return {"mean": [0.0] * 3, "std": [1 / scale] * 3}
    usual = default_preprocess()
    statistics = {}
    for name in ("mean", "std"):
        value = options.get(f"image_{name}", usual[name])
        values = [value] * 3 if isinstance(value, (int, float)) else value
        if (
            not isinstance(values, list)
            or len(values) != 3
            or not all(isinstance(each, (int, float)) and (each > 0 or name == "mean") for each in values)
        ):
            raise UserError(f"{where}image_{name} = {value!r} is not three numbers")
        statistics[name] = [each / scale for each in values]
    return statistics
