"""A decoded image of any mode to RGB, and upright, as a viewer shows it."""

from __future__ import annotations

import warnings

import numpy as np
from PIL import ExifTags, Image

WITH_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")
_MOST_OF_12_BITS = 2**12 - 1
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a TIFF's tag

# What turns a stored image upright, by its orientation as EXIF numbers it.
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UndefinedRange(ValueError):
    """An image whose values have no defined brightness: which of them is white is not known."""


def is_deep(mode: str) -> bool:
    """Whether a mode is a grey of more than 8 bits: integers of 16 (``I;16...``) or 32 (``I``), or floats (``F``)."""
    return mode in ("I", "F") or mode.startswith("I;16")


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a decoded image of any mode to RGB.

    - Transparency is laid on white.
    - Integers from 0 to 65535 are taken as 16 bits, whose high byte remains. Where none is above 255 they are taken as
      8 bits that were stored in more: viewers show such a file all but black. Where the largest is from 256 to 4095
      they may be 10 or 12 bits of a sensor, or depths: as 16 bits they would be all but black too.
    - Floats from 0 to 1 are multiplied by 255; those from 0 to 255 are rounded.
    - Everything else as Pillow converts it: 1 bit to 0 or 255, palettes by their colours, CMYK as ``(1 - C)(1 - K)``,
      L*a*b* from D50 to sRGB. An embedded ICC profile is not applied.

    Raises:
        UndefinedRange: those, and other integers or floats: black and white are not defined for them.
    """
    transparent = "transparency" in image.info
    if image.mode == "RGB" and not transparent:
        return image
    if is_deep(image.mode):
        return Image.fromarray(_to_eight_bits(image)).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")  # the only one that Pillow converts it to
    if image.mode in WITH_ALPHA or transparent:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def read_orientation(image: Image.Image) -> int:
    """How an image is stored, 1 (upright) to 8, as EXIF numbers it; damaged EXIF says nothing. Load a TIFF before."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow raises whatever its parser met
        return 1
    return orientation if orientation in range(1, 9) else 1


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image as its orientation asks for; what is returned says of itself that it is upright."""
    if orientation not in _TURN:
        return image
    upright = image.transpose(_TURN[orientation])
    upright.info = {}  # the EXIF in it is that of the stored image
    return upright


def _to_eight_bits(image: Image.Image) -> np.ndarray:
    """Grey of more than 8 bits as uint8 ``[height, width]``, with a transparent value as white."""
    values = np.asarray(image)
    low, high = values.min(initial=0), values.max(initial=0)
    if not (low >= 0 and high <= (255 if image.mode == "F" else 65535)):  # NaN fails as well
        raise UndefinedRange(
            f"mode {image.mode} with values from {low:g} to {high:g}: which of them is white is not known; "
            "save it as 8 or 16 bits"
        )
    if image.mode != "F" and 255 < high <= _MOST_OF_12_BITS:
        raise UndefinedRange(
            f"mode {image.mode} with values from {low} to {high}: all but black as 16 bits, and nobody knows whether "
            "they are 10 or 12; save it as 8 bits, or as 16 of which all are used"
        )
    if image.mode == "F":
        grey = np.rint(values * 255 if high <= 1 else values).astype(np.uint8)
    else:
        grey = (values >> 8 if high > 255 else values).astype(np.uint8)
    tags = getattr(image, "tag_v2", None)
    if tags is not None and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow heeds it where there are 8 bits
        grey = 255 - grey
    transparent = image.info.get("transparency")
    return grey if transparent is None else np.where(values == transparent, np.uint8(255), grey)
