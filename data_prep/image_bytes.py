"""The bytes of an image as they go into a shard: untouched where possible, encoded again where needed."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from bimodal_cl.data.decode import MAX_PIXELS
from bimodal_cl.image_modes import to_rgb

# Sources may hold more formats than shards do, but only plain raster ones: some of Pillow's others start programs.
SOURCE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# Content decides, not the file's name. Pillow calls a JPEG with an embedded preview MPO.
EXTENSION_OF_FORMAT = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp"}


class BadImage(ValueError):
    """An image that cannot be read or decoded; the message says why."""


@dataclass(frozen=True)
class StoredImage:
    """Bytes and extension of a shard's image member; ``reencoded`` says why they differ from the source's, or ""."""

    data: bytes
    extension: str
    reencoded: str = ""


def store_image(image: Path | bytes, max_side: int | None = None, quality: int = 90) -> StoredImage:
    """Read an image, make sure that it decodes, and return what a shard stores.

    The bytes stay as they are unless the longer side exceeds ``max_side`` pixels (then the image is scaled down to
    it, upright by its EXIF orientation) or the format is not one that shards allow; both are stored as JPEG.

    Args:
        image: a file or its bytes.
        max_side: the largest allowed side in pixels; None for any.
        quality: JPEG quality of images that are encoded again, 1 to 100.

    Raises:
        BadImage: no such file, not an image, truncated, or too many pixels.
    """
    data = _read(image)
    picture = open_image(data)
    extension = EXTENSION_OF_FORMAT.get(picture.format or "")
    too_large = max_side is not None and max(picture.size) > max_side
    if not too_large and picture.width * picture.height > MAX_PIXELS:
        raise BadImage(f"{picture.width} x {picture.height} pixels, more than {MAX_PIXELS:,}; --max-side shrinks it")
    if extension and not too_large:
        # Decoding at an eighth of the size still reads every byte, which is what finds a truncated file.
        picture.draft(None, (1, 1))
        _decode(picture)
        return StoredImage(data, extension)
    reason = "resized" if too_large else f"{picture.format} as JPEG"
    if too_large:
        assert max_side is not None
        picture.draft(None, (2 * max_side, 2 * max_side))
    _decode(picture)
    upright = to_rgb(_upright(picture))
    if too_large:
        assert max_side is not None
        upright.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", quality=quality)
    return StoredImage(buffer.getvalue(), ".jpg", reason)


def stored_extension(data: bytes) -> str | None:
    """The extension that a shard's member of these bytes has; None where shards do not hold the format.

    Raises:
        BadImage: as :func:`open_image`.
    """
    return EXTENSION_OF_FORMAT.get(open_image(data).format or "")


def open_image(data: bytes) -> Image.Image:
    """Open an image from its bytes, header only.

    Raises:
        BadImage: empty, not an image of ``SOURCE_FORMATS``, or more pixels than Pillow allows.
    """
    if not data:
        raise BadImage("zero bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's advice on many pixels, which have a limit of their own here
            return Image.open(io.BytesIO(data), formats=SOURCE_FORMATS)
    except Image.UnidentifiedImageError:
        raise BadImage(f"not an image (its bytes are not {', '.join(SOURCE_FORMATS)})") from None
    except Exception as error:  # a broken file can make a decoder raise nearly anything
        raise BadImage(_one_line(error)) from None


def _upright(picture: Image.Image) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ImageOps.exif_transpose(picture)
    except Exception:  # damaged EXIF says nothing about the pixels, which did decode
        return picture


def _read(image: Path | bytes) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        return image.read_bytes()
    except FileNotFoundError:
        raise BadImage("no such file") from None
    except (OSError, ValueError) as error:
        raise BadImage(f"cannot be read: {_one_line(error)}") from None


def _decode(picture: Image.Image) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on odd metadata
            picture.load()
    except Exception as error:  # as above
        raise BadImage(_one_line(error)) from None


def _one_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
