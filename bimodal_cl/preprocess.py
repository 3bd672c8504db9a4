"""Preprocess an image for evaluation; data and models share this one definition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.image_modes import read_orientation, to_rgb, turn_upright

if TYPE_CHECKING:
    from torch import Tensor

_CHOICES = {
    "resize_mode": ("shortest", "longest", "squash", "none"),
    "interpolation": ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"),
    "convention": ("open_clip", "transformers"),
}
# Above this many pixels (0.1 GiB of RGB) only the centre square is resampled: an aspect of 600 at 224 pixels.
_MOST_PIXELS = 2**25


@dataclass(frozen=True)
class EvalTransform:
    """Bring an image of any size and mode to a square: resize, then crop or pad at the centre.

    For RGB images the pixels are exactly those of open_clip's ``image_transform(..., is_train=False)``, or with the
    other convention those of transformers' image processors up to one grey level. Where the resized image would have
    more than 33 million pixels, only its centre is resampled: equal up to the rounding in Pillow's two passes.

    Args:
        image_size: side of the result, pixels, >= 1.
        resize_mode: ``shortest`` or ``longest``: that side becomes ``resize_size``, the aspect ratio is kept;
            ``squash``: both do; ``none``: the image keeps its size.
        resize_size: pixels, >= 1; None: ``image_size``.
        interpolation: Pillow's name of the resampling filter.
        fill_color: of the padding where the resized image is smaller than the square: 0 to 255, one value or three.
        convention: the rounding: ``open_clip`` rounds margins and the other side to the nearest pixel and leaves the
            order of resampling to Pillow; ``transformers`` rounds both down and resamples rows before columns.
        max_long_side: with ``shortest``, limit of the long side in pixels; the short side shrinks with it.

    Raises:
        UserError: a value is out of range.
    """

    image_size: int
    resize_mode: str = "shortest"
    resize_size: int | None = None
    interpolation: str = "bicubic"
    fill_color: int | tuple[int, int, int] = 0
    convention: str = "open_clip"
    max_long_side: int | None = None

    def __post_init__(self) -> None:
        for name in ("image_size", "resize_size", "max_long_side"):
            value = getattr(self, name)
            optional = value is None and name != "image_size"
            if not optional and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                number = "" if isinstance(value, int) else "a whole number of "
                raise UserError(f"{name} must be {number}at least 1, got {value!r}")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise UserError(f"{name} '{value}' is unknown{did_you_mean(str(value), choices)}")
        levels = self.fill_color if isinstance(self.fill_color, tuple) else (self.fill_color,) * 3
        if len(levels) != 3 or not all(isinstance(level, int) and 0 <= level <= 255 for level in levels):
            raise UserError(f"fill_color must be one or three integers from 0 to 255, got {self.fill_color!r}")
        if self.max_long_side is not None and self.resize_mode != "shortest":
            raise UserError(f"max_long_side has no effect with resize_mode '{self.resize_mode}'")

    def __call__(self, image: Image.Image) -> Tensor:
        """Turn an upright or EXIF-rotated image of any mode into uint8 ``[3, image_size, image_size]``."""
        image.load()  # which turns a TIFF upright
        return to_tensor(self.crop(turn_upright(to_rgb(image), read_orientation(image))))

    def crop(self, image: Image.Image) -> Image.Image:
        """Resize an RGB image and take its centre square; the part of :meth:`__call__` that needs no torch."""
        width, height = self.resized(*image.size)
        filter_ = Image.Resampling[self.interpolation.upper()]
        if width * height > _MOST_PIXELS and self.resize_mode != "none":
            return self._crop_first(image, width, height, filter_)
        if self.convention == "transformers" and width != image.width:
            image = image.resize((width, image.height), filter_)
        if (width, height) != image.size:
            image = image.resize((width, height), filter_)
        side = self.image_size
        if (width, height) == (side, side):
            return image
        fill = self.fill_color if isinstance(self.fill_color, tuple) else (self.fill_color,) * 3
        square = Image.new("RGB", (side, side), fill)
        square.paste(image, (-self._margin(width), -self._margin(height)))
        return square

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) to which an image of that size is resized, before the crop."""
        side = self.resize_size or self.image_size
        if self.resize_mode == "none":
            return width, height
        if self.resize_mode == "squash":
            return side, side
        if self.resize_mode == "longest":
            if self.convention == "transformers":
                scale = min(side / height, side / width)
                return max(int(width * scale), 1), max(int(height * scale), 1)
            ratio = max(height / side, width / side)
            return max(round(width / ratio), 1), max(round(height / ratio), 1)
        short, long = min(width, height), max(width, height)
        exact: float = side
        if self.max_long_side is not None and long / short * side > self.max_long_side:
            exact = self.max_long_side * short / long
        new_short, new_long = max(round(exact), 1), max(int(exact * long / short), 1)
        if short == new_short and exact != side:  # transformers leaves it as it is then
            new_long = long
        return (new_short, new_long) if width <= height else (new_long, new_short)

    def _margin(self, length: int) -> int:
        """Return the number of pixels to cut off before the square; negative: to add."""
        spare = length - self.image_size
        if spare < 0:
            return -(-spare // 2)
        return round(spare / 2) if self.convention == "open_clip" else spare // 2

    def _crop_first(self, image: Image.Image, width: int, height: int, filter_: Image.Resampling) -> Image.Image:
        """Resample only the part of the image that the square shows."""
        lengths, spans = image.size, []
        for old, new in zip(lengths, (width, height), strict=True):
            start = max(self._margin(new), 0) * old / new
            spans.append((start, min(start + min(self.image_size, new) * old / new, old)))
        sides = (min(self.image_size, width), min(self.image_size, height))
        part = image.resize(sides, filter_, box=(spans[0][0], spans[1][0], spans[0][1], spans[1][1]))
        return EvalTransform(self.image_size, "none", fill_color=self.fill_color, convention=self.convention).crop(part)


def to_tensor(image: Image.Image | np.ndarray) -> Tensor:
    """Copy an RGB image, or its pixels uint8 ``[height, width, 3]``, into uint8 ``[3, height, width]``.

    The memory layout stays channels-last, as decoders give it and convolutions prefer it. numpy makes the copy, because
    torch would start threads for it, which on a busy machine take longer than the decoding.
    """
    import torch

    return torch.from_numpy(np.array(image, dtype=np.uint8, order="C")).permute(2, 0, 1)


def normalize(pixels: Tensor, mean: Any, std: Any) -> Tensor:
    """Return ``(pixels / 255 - mean) / std`` of uint8 pixels as float32."""
    return (pixels.float() / 255 - mean) / std
