"""The bytes of an image as they go into a shard: untouched where possible, encoded again where needed."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

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
    upright = to_rgb(ImageOps.exif_transpose(picture))
    if too_large:
        assert max_side is not None
        upright.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", quality=quality)
    return StoredImage(buffer.getvalue(), ".jpg", reason)


def open_image(data: bytes) -> Image.Image:
    """Open an image from its bytes, header only.

    Raises:
        BadImage: empty, not an image, or more pixels than Pillow allows.
    """
    if not data:
        raise BadImage("zero bytes")
    try:
        return Image.open(io.BytesIO(data))
    except Image.UnidentifiedImageError:
        raise BadImage("not an image") from None
    except Exception as error:  # a broken file can make a decoder raise nearly anything
        raise BadImage(_one_line(error)) from None


def check_image(data: bytes) -> None:
    """Decode every pixel of an image.

    Raises:
        BadImage: it does not decode; the message says why.
    """
    _decode(open_image(data))


def to_rgb(picture: Image.Image) -> Image.Image:
    """Return the image as RGB; what is transparent becomes white."""
    if picture.mode == "RGB":
        return picture
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture.convert("RGB")


def _read(image: Path | bytes) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        return image.read_bytes()
    except FileNotFoundError:
        raise BadImage(f"no such file: {image}") from None
    except (OSError, ValueError) as error:
        raise BadImage(f"cannot read {image}: {_one_line(error)}") from None


def _decode(picture: Image.Image) -> None:
    try:
        picture.load()
    except Exception as error:  # as above
        raise BadImage(_one_line(error)) from None


def _one_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
