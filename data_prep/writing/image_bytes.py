"""Prepare the bytes of an image for a shard: unchanged if possible, else encoded again as JPEG."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from bimodal_cl.data.images.decode import MAX_PIXELS, BadImage, decode_picture, load_picture, open_picture
from bimodal_cl.files.image_modes import is_deep

# Formats that other programs read from shards. The content decides, not the file's name. MPO is a JPEG with an
# embedded preview.
EXTENSION_OF_FORMAT = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp"}
MAX_SOURCE_PIXELS = 2 * MAX_PIXELS  # limit for images that are scaled down; it equals Pillow's own limit


@dataclass(frozen=True)
class StoredImage:
    """Bytes and extension of an image member; ``reencoded`` says why the bytes differ from the source's, or is ""."""

    data: bytes
    extension: str
    reencoded: str = ""


def store_image(image: Path | bytes, max_side: int | None = None, quality: int = 90) -> StoredImage:
    """Read an image, check that it decodes, and return what a shard stores.

    The bytes stay unchanged unless the longer side exceeds ``max_side`` pixels (then the image is scaled down and
    turned upright by its EXIF orientation) or shards do not hold the format; both are stored as JPEG.

    Args:
        image: a file, or its bytes.
        max_side: the largest allowed side in pixels; None for no limit.
        quality: JPEG quality of images that are encoded again, 1 to 100.

    Raises:
        BadImage: the file is missing, is not an image, is truncated, has too many pixels, or its values have no defined
            range.
    """
    data = _read(image)
    picture = open_picture(data, MAX_SOURCE_PIXELS)
    extension = EXTENSION_OF_FORMAT.get(picture.format or "")
    too_large = max_side is not None and max(picture.size) > max_side
    if not too_large and picture.width * picture.height > MAX_PIXELS:
        reason = f"{picture.width} x {picture.height} pixels, more than {MAX_PIXELS:,}; --max-side shrinks it"
        raise BadImage("too_many_pixels", reason)
    if extension and not too_large:
        # Decoding at an eighth of the size is fast and still reads every byte, so it finds truncated files.
        picture.draft(None, (1, 1))
        load_picture(picture)
        if is_deep(picture.mode):
            decode_picture(picture)  # raises if its values have no defined range
        return StoredImage(data, extension)
    reason = "resized" if too_large else f"{picture.format} as JPEG"
    if too_large:
        assert max_side is not None
        picture.draft(None, (2 * max_side, 2 * max_side))
    upright = decode_picture(picture)
    if too_large:
        assert max_side is not None
        upright.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", quality=quality)
    return StoredImage(buffer.getvalue(), ".jpg", reason)


def _read(image: Path | bytes) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        return image.read_bytes()
    except FileNotFoundError:
        raise BadImage("unreadable", "no such file") from None
    except (OSError, ValueError) as error:
        raise BadImage("unreadable", f"cannot be read: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
