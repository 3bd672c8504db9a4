"""Augment images for training: a random crop, resized, and perhaps flipped.

A model has its own transform for evaluation: see :mod:`bimodal_cl.preprocess`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from bimodal_cl.data.images.decode import EncodedImage
from bimodal_cl.data.order.draws import Purpose, draw_uniform
from bimodal_cl.errors import UserError
from bimodal_cl.preprocess import to_tensor

_ATTEMPTS = 10
_DRAWS = 3 + 2 * _ATTEMPTS  # flip, left, top, then area and aspect ratio of each attempt


@dataclass(frozen=True)
class TrainTransform:
    """Crop a random part, resize it to a square (antialiased), and perhaps flip it.

    The distribution of crops is that of Inception's augmentation (Szegedy et al., "Going deeper with convolutions",
    CVPR 2015, section 6) as torchvision's ``RandomResizedCrop`` draws it. The edges of large crops are then rounded to
    multiples of 2, 4 or 8 pixels: see :func:`~bimodal_cl.data.images.decode.align_box`.

    Args:
        image_size: side of the result, pixels, >= 1.
        scale: smallest and largest area of the crop, fractions of the image, ``0 < min <= max <= 1``.
        ratio: smallest and largest width / height of the crop, ``0 < min <= max``.
        flip: mirror half of the images. Off by default, as captions say "left" and "right".
        interpolation: of resizing: ``bilinear``, or any other filter of a model's evaluation for bicubic.

    Raises:
        UserError: a value is out of range.
    """

    image_size: int
    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise UserError(f"image_size must be at least 1, got {self.image_size}")
        for name, bounds, most in (("scale", self.scale, 1.0), ("ratio", self.ratio, math.inf)):
            if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= most:
                raise UserError(f"{name} must be two numbers with 0 < min <= max <= {most}, got {tuple(bounds)}")

    def apply(
        self,
        encoded: EncodedImage,
        seed: int = 0,
        epoch: int = 0,
        image_id: int = 0,
        when_decoded: Callable[[], object] = bool,
    ) -> Tensor:
        """Return the crop of an image, uint8 ``[3, image_size, image_size]``, as a function of three integers.

        A JPEG is decoded at a reduced scale if that suffices, which changes pixels slightly but not the crop: see
        :meth:`~bimodal_cl.data.images.decode.EncodedImage.decode_crop`.

        Args:
            encoded: the image.
            seed, epoch, image_id: they determine the random numbers.
            when_decoded: called between decoding and resizing, to measure the time of each.

        Raises:
            BadImage: the bytes are damaged or incomplete.
        """
        draws = draw_uniform(Purpose.AUGMENTATION, seed, epoch, image_id, np.arange(_DRAWS))
        pixels = encoded.decode_crop(self.crop_box(*encoded.size, draws), self.image_size)
        when_decoded()
        return self._finish(pixels, draws)

    def _finish(self, pixels: np.ndarray, draws: np.ndarray) -> Tensor:
        resized = resize(pixels, self.image_size, self.interpolation)
        if self.flip and draws[0] < 0.5:
            return to_tensor(resized.numpy().transpose(1, 2, 0)[:, ::-1])
        return resized

    def crop_box(self, width: int, height: int, draws: np.ndarray) -> tuple[int, int, int, int]:
        """Return the crop (left, top, right, bottom) in pixels for uniform numbers ``draws``, float64 ``[23]``.

        Ten pairs of area and ratio are tried. If none fits, the crop is the largest central one with a valid ratio.
        """
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for draw_area, draw_ratio in draws[3:].reshape(-1, 2):
            area = width * height * (self.scale[0] + (self.scale[1] - self.scale[0]) * draw_area)
            ratio = math.exp(low + (high - low) * draw_ratio)
            crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                left = int(draws[1] * (width - crop_width + 1))
                top = int(draws[2] * (height - crop_height + 1))
                return left, top, left + crop_width, top + crop_height
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        crop_width = min(width, max(round(height * ratio), 1))
        crop_height = min(height, max(round(width / ratio), 1))
        left, top = (width - crop_width) // 2, (height - crop_height) // 2
        return left, top, left + crop_width, top + crop_height


def resize(pixels: np.ndarray, side: int, interpolation: str = "bicubic") -> Tensor:
    """Resize pixels, uint8 ``[height, width, 3]``, to a square (antialiased): uint8 ``[3, side, side]``.

    torch's kernel computes Pillow's pixels up to rounding, in a fifth of the time, and starts no threads for one image.
    The result is channels-last in memory, as decoders produce pixels and convolutions read them fastest.
    """
    # numpy copies the part of the image, since torch would start its threads to copy it.
    batch = torch.from_numpy(np.ascontiguousarray(pixels))[None].permute(0, 3, 1, 2)
    mode = "bilinear" if interpolation == "bilinear" else "bicubic"  # torch antialiases no other
    return interpolate(batch, (side, side), mode=mode, antialias=True)[0]
