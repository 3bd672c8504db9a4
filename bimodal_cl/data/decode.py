"""From an image file's bytes to an RGB image: any mode, upright, transparency on white; faults by kind."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

# Pillow's own threshold for a suspected decompression bomb: 0.25 GiB of RGB.
MAX_PIXELS = 89_478_485
# Web data is full of files whose extension lies. Only plain raster decoders: others start programs or have no limits.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


class BadImage(Exception):
    """An image that cannot be used.

    Args:
        kind: ``"undecodable"`` or ``"too_many_pixels"``.
        reason: what was found.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode JPEG, PNG, WebP, GIF or BMP (the first frame) to an upright RGB image.

    Transparency is laid on white, 16 bits become 8, CMYK and palettes become RGB, EXIF orientation is applied. The
    header's size is checked before a pixel is decoded.

    Raises:
        BadImage: the bytes are no image, are incomplete, or have more than ``max_pixels`` pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's advice on bombs and odd EXIF; ours are counted faults
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            width, height = image.size
            if width * height > max_pixels:
                raise BadImage("too_many_pixels", f"{width} x {height} pixels, more than {max_pixels}")
            image.load()
            return to_rgb(_upright(image))
    except Image.DecompressionBombError as error:
        raise BadImage("too_many_pixels", str(error)) from None
    except (BadImage, MemoryError):
        raise
    except UnidentifiedImageError:
        reason = f"its bytes are not {', '.join(_FORMATS)}" if data else "zero bytes"
        raise BadImage("undecodable", reason) from None
    except Exception as error:  # Pillow's decoders raise whatever their format's parser met
        raise BadImage("undecodable", f"{type(error).__name__}: {error}") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a decoded image of any mode to RGB, transparency laid on white, 16 bits scaled to 8."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode == "I" or image.mode.startswith("I;16"):  # 16-bit grey; a plain conversion would clip at 255
        grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF says nothing about the pixels, which did decode
        return image
    return ImageOps.exif_transpose(image) if orientation != 1 else image
