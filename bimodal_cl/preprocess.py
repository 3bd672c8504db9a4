"""Preprocess images for evaluation: resize, crop, convert and normalise; shared by data and models."""

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
# Above this size of the resized image (0.1 GiB of RGB; an aspect ratio of 600 at 224 pixels), only the centre square is
# resampled.
_MOST_PIXELS = 2**25


@dataclass(frozen=True)
class EvalTransform:
    """Convert an image of any size and mode to a square: resize, then crop or pad at the centre.

    For RGB images, the pixels equal those of open_clip's ``image_transform(..., is_train=False)`` exactly or, with the
    convention ``transformers``, those of transformers' image processors to within one grey level. Where the resized
    image would have more than 33 million pixels, only its centre is resampled, which may change Pillow's rounding.

    Args:
        image_size: side of the result in pixels, at least 1.
        resize_mode: ``shortest`` or ``longest``: that side is resized to ``resize_size``, with the aspect ratio kept;
            ``squash``: both sides are; ``none``: the image keeps its size.
        resize_size: pixels, at least 1; None: ``image_size``.
        interpolation: Pillow's name of the resampling filter.
        fill_color: color of the padding around smaller images, one value or three from 0 to 255.
        convention: ``open_clip`` rounds margins and sizes to the nearest pixel and lets Pillow choose the order of
            resampling; ``transformers`` rounds both down and resamples rows before columns, as torch does.
        max_long_side: upper bound in pixels of the long side with ``shortest``; the short side shrinks accordingly.

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
        """Convert an image of any mode and EXIF orientation to uint8 ``[3, image_size, image_size]``."""
        image.load()  # applies the orientation of a TIFF
        return to_tensor(self.crop(turn_upright(to_rgb(image), read_orientation(image))))

    def crop(self, image: Image.Image) -> Image.Image:
        """Resize an RGB image and crop its centre square: the part of :meth:`__call__` that needs no torch."""
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
        """Return the (width, height) to which an image of this size is resized before the crop."""
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
        if short == new_short and exact != side:  # transformers then leaves the long side unchanged
            new_long = long
        return (new_short, new_long) if width <= height else (new_long, new_short)

    def _margin(self, length: int) -> int:
        """Return the number of pixels to crop before the square; negative: to pad."""
        spare = length - self.image_size
        if spare < 0:
            return -(-spare // 2)
        return round(spare / 2) if self.convention == "open_clip" else spare // 2

    def _crop_first(self, image: Image.Image, width: int, height: int, filter_: Image.Resampling) -> Image.Image:
        """Resample only the part of the image that the centre square shows."""
        lengths, spans = image.size, []
        for old, new in zip(lengths, (width, height), strict=True):
            start = max(self._margin(new), 0) * old / new
            spans.append((start, min(start + min(self.image_size, new) * old / new, old)))
        sides = (min(self.image_size, width), min(self.image_size, height))
        part = image.resize(sides, filter_, box=(spans[0][0], spans[1][0], spans[0][1], spans[1][1]))
        return EvalTransform(self.image_size, "none", fill_color=self.fill_color, convention=self.convention).crop(part)


def to_tensor(image: Image.Image | np.ndarray) -> Tensor:
    """Copy an RGB image, or its pixels uint8 ``[height, width, 3]``, into uint8 ``[3, height, width]``.

    The memory layout stays channels last, as decoders write it and convolutions prefer it. numpy makes the copy, since
    torch would start threads for it and, on a busy machine, wait for them longer than decoding takes.
    """
    import torch

    return torch.from_numpy(np.array(image, dtype=np.uint8, order="C")).permute(2, 0, 1)


def normalize(pixels: Tensor, mean: Any, std: Any) -> Tensor:
    """Return ``(pixels / 255 - mean) / std`` of uint8 pixels as float32; the one definition of normalisation."""
    return (pixels.float() / 255 - mean) / std
