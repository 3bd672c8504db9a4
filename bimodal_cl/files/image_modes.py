"""Convert a decoded image of any mode to RGB, and turn it upright, as a viewer shows it."""

from __future__ import annotations

import warnings

import numpy as np
from PIL import ExifTags, Image

WITH_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")
_MOST_OF_12_BITS = 2**12 - 1
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a TIFF's tag

# The operation that turns a stored image upright, by EXIF orientation.
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
    """The values of an image have no defined brightness: it is unknown which of them is white."""


def is_deep(mode: str) -> bool:
    """Return whether a mode is grey with more than 8 bits: 16 (``I;16...``) or 32 (``I``) bits, or floats (``F``)."""
    return mode in ("I", "F") or mode.startswith("I;16")


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a decoded image of any mode to RGB.

    - Transparency is composited on white.
    - Integers from 0 to 65535 are 16 bits, of which the high byte is kept. If none is above 255, they are 8 bits that
      were stored in 16, a file that viewers show almost black. If the largest is from 256 to 4095, they are refused:
      they may be 10 or 12 bits of a sensor, or depths, and would be almost black as 16 bits.
    - Floats from 0 to 1 are multiplied by 255; those from 0 to 255 are rounded.
    - Everything else is converted by Pillow: 1 bit to 0 or 255, palettes by their colours, CMYK as ``(1 - C)(1 - K)``,
      L*a*b* from D50 to sRGB. An embedded ICC profile is not applied.

    Raises:
        UndefinedRange: other integers or floats, for which black and white are not defined.
    """
    transparent = "transparency" in image.info
    if image.mode == "RGB" and not transparent:
        return image
    if is_deep(image.mode):
        return Image.fromarray(_to_eight_bits(image)).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")  # the only mode to which Pillow converts it
    if image.mode in WITH_ALPHA or transparent:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 (upright) to 8; 1 if EXIF is damaged. A TIFF must be loaded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow's parser raises exceptions of any type
        return 1
    return orientation if orientation in range(1, 9) else 1


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image upright, by its EXIF orientation; the result has no EXIF."""
    if orientation not in _TURN:
        return image
    upright = image.transpose(_TURN[orientation])
    upright.info = {}  # the EXIF in it is that of the stored image
    return upright


def _to_eight_bits(image: Image.Image) -> np.ndarray:
    """Convert grey of more than 8 bits to uint8 ``[height, width]``, with a transparent value as white."""
    values = np.asarray(image)
    low, high = values.min(initial=0), values.max(initial=0)
    if not (low >= 0 and high <= (255 if image.mode == "F" else 65535)):  # NaN fails as well
        raise UndefinedRange(
            f"mode {image.mode} with values from {low:g} to {high:g}: it is unknown which of them is "
            "white; save it as 8 or 16 bits"
        )
    if image.mode != "F" and 255 < high <= _MOST_OF_12_BITS:
        raise UndefinedRange(
            f"mode {image.mode} with values from {low} to {high}: almost black as 16 bits, and it is unknown "
            "whether they are 10 or 12; save it as 8 bits, or as 16 bits that are all used"
        )
    if image.mode == "F":
        grey = np.rint(values * 255 if high <= 1 else values).astype(np.uint8)
    else:
        grey = (values >> 8 if high > 255 else values).astype(np.uint8)
    tags = getattr(image, "tag_v2", None)
    if tags is not None and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts only images of 8 bits
        grey = 255 - grey
    transparent = image.info.get("transparency")
    return grey if transparent is None else np.where(values == transparent, np.uint8(255), grey)
