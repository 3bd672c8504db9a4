"""The bytes of an image as they go into a shard: untouched where possible, encoded again where needed."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from bimodal_cl.data.images.decode import MAX_PIXELS, BadImage, decode_picture, load_picture, open_picture
from bimodal_cl.files.image_modes import is_deep

# What other programs read from shards; content decides, not the file's name. Pillow calls a JPEG with an embedded
# preview MPO.
EXTENSION_OF_FORMAT = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp"}
MAX_SOURCE_PIXELS = 2 * MAX_PIXELS  # of an image that is scaled down, which is where Pillow's own limit lies


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
        BadImage: no such file, not an image, truncated, too many pixels, or values of no defined brightness.
    """
    data = _read(image)
    picture = open_picture(data, MAX_SOURCE_PIXELS)
    extension = EXTENSION_OF_FORMAT.get(picture.format or "")
    too_large = max_side is not None and max(picture.size) > max_side
    if not too_large and picture.width * picture.height > MAX_PIXELS:
        reason = f"{picture.width} x {picture.height} pixels, more than {MAX_PIXELS:,}; --max-side shrinks it"
        raise BadImage("too_many_pixels", reason)
    if extension and not too_large:
        # Decoding at an eighth of the size still reads every byte, which is what finds a truncated file.
        picture.draft(None, (1, 1))
        load_picture(picture)
        if is_deep(picture.mode):
            decode_picture(picture)  # is its brightness defined?
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
