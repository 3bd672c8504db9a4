"""Decode image files to upright RGB pixels of any mode, with faults and oddities by kind."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from bimodal_cl.data.images.jpeg import DIVISORS, JpegHeader, decode_scaled, read_header
from bimodal_cl.files.image_formats import EXTENSIONS_OF_FORMAT, IMAGE_FORMATS, name_other_content
from bimodal_cl.files.image_modes import WITH_ALPHA, UndefinedRange, is_deep, read_orientation, to_rgb, turn_upright

# Pillow's own threshold for a suspected decompression bomb: 0.25 GiB of RGB.
MAX_PIXELS = 89_478_485
# An aspect ratio above this is extreme.
EXTREME_ASPECT = 20
# Pillow calls a JPEG with an embedded preview MPO, and only the first image of either is read.
_JPEG = (*EXTENSIONS_OF_FORMAT["JPEG"], *EXTENSIONS_OF_FORMAT["MPO"])
_EXTENSIONS = {**EXTENSIONS_OF_FORMAT, "JPEG": _JPEG, "MPO": _JPEG}
_PNG_EXIF = (b"eXIf", b"Raw profile type", b"adobe.xmp")  # chunks in which a PNG may store an orientation
_PNG_BIT_DEPTH = 24  # offset of the byte

# EXIF orientations whose upright image begins at the right, or lower, edge of the stored one.
_FAR_ACROSS, _FAR_DOWN = (2, 3, 6, 7), (3, 4, 7, 8)
_PILLOW_LIMIT = threading.RLock()  # all threads share Pillow's own limit of pixels

Box = tuple[int, int, int, int]


class BadImage(Exception):
    """An image that cannot be used.

    Args:
        kind: ``"zero_bytes"``, ``"undecodable"``, ``"too_many_pixels"``, ``"undefined_range"`` or ``"unreadable"``, of
            :data:`~bimodal_cl.data.shards.faults.REPLACED_KINDS`.
        reason: what was found.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class EncodedImage:
    """An image whose header has been read but whose pixels have not been decoded. Made by :func:`open_encoded`.

    Args:
        data: the bytes of the file.
        size: (width, height) of the upright image, pixels.
        format: of the bytes, as Pillow calls it.
        notes: kinds of ``USED_KINDS`` of :mod:`~bimodal_cl.data.shards.faults` that the header shows, in that order.
        orientation: of the stored image, 1 to 8, as in EXIF.
        jpeg: the header, if the image can be decoded at a reduced scale.
        max_pixels: the limit that it was opened with.
    """

    data: bytes
    size: tuple[int, int]
    format: str = ""
    notes: tuple[str, ...] = ()
    orientation: int = 1
    jpeg: JpegHeader | None = None
    max_pixels: int = MAX_PIXELS

    def decode(self) -> Image.Image:
        """Decode the whole image, as :func:`decode_image` does.

        Raises:
            BadImage: the bytes are damaged or incomplete.
        """
        return decode_image(self.data, self.max_pixels)

    def decode_crop(self, box: Box, side: int) -> np.ndarray:
        """Decode a box of the upright image that will be resized to a square of ``side`` pixels.

        A plain JPEG is decoded at an eighth, a quarter or a half of its size if the box then still has at least
        ``side`` pixels each way. :func:`align_box` rounds the box, so it covers whole pixels at that scale. After
        resizing, pixels differ from those of a full decode by 1 to 3 grey levels in the mean over photos, and by less
        than 8 in the mean over a single photo.

        Args:
            box: left, top, right, bottom, pixels of the upright image.
            side: pixels, >= 1.

        Returns:
            uint8 ``[height, width, 3]``, a view of the decoded pixels.

        Raises:
            BadImage: the bytes are damaged or incomplete.
        """
        box, divisor = align_box(box, self.size, side)
        if self.jpeg is not None:
            divisor = min(divisor, self._largest_divisor())
            pixels = decode_scaled(self.data, self.jpeg, divisor)
            if pixels is not None:
                left, top, right, bottom = (edge // divisor for edge in box)
                return turn_pixels(pixels, self.orientation)[top:bottom, left:right]
        left, top, right, bottom = box
        return np.array(np.asarray(self.decode())[top:bottom, left:right])

    def _largest_divisor(self) -> int:
        """Return the largest divisor whose pixel grid begins at the upright image's left and upper edge.

        Rounding leaves a partial pixel at the right and the lower edge of the stored image.
        """
        across = self.size[0] if self.orientation in _FAR_ACROSS else 0
        down = self.size[1] if self.orientation in _FAR_DOWN else 0
        return next(divisor for divisor in DIVISORS if across % divisor == down % divisor == 0)


def align_box(box: Box, size: tuple[int, int], side: int) -> tuple[Box, int]:
    """Round a box's edges to whole pixels of the smallest scale at which it has ``side`` pixels each way.

    Args:
        box: left, top, right, bottom, pixels.
        size: (width, height) of the image.
        side: pixels, >= 1.

    Returns:
        The box, whose edges are multiples of the divisor, and the divisor: 1, 2, 4 or 8. An edge moves by at most half
        the divisor, so by half a pixel of the resized square; at the right and lower end of the image, by at most one
        divisor.
    """
    left, top, right, bottom = box
    divisor = next(n for n in DIVISORS if min(right - left, bottom - top) >= n * side or n == 1)
    half = divisor // 2
    near = [(edge + half) // divisor * divisor for edge in (left, top)]
    far = [min(edge + half, length) // divisor * divisor for edge, length in zip((right, bottom), size, strict=True)]
    return (near[0], near[1], far[0], far[1]), divisor


def open_encoded(data: bytes, max_pixels: int = MAX_PIXELS, extension: str = "") -> EncodedImage:
    """Read the header of an image of ``IMAGE_FORMATS`` without decoding pixels.

    Args:
        data: the bytes of the file.
        max_pixels: images with more pixels are refused.
        extension: of the file's name, with or without its dot; ``""`` if unknown.

    Raises:
        BadImage: there are no bytes, they are not an image, or it has more than ``max_pixels`` pixels.
    """
    jpeg = read_header(data)
    if jpeg is not None and not jpeg.metadata:
        size = jpeg.width, jpeg.height
        _require_few_pixels(size, max_pixels)
        return EncodedImage(data, size, "JPEG", _find_notes("JPEG", size, extension), 1, jpeg, max_pixels)
    picture = open_picture(data, max_pixels)
    # To look for EXIF in a PNG, Pillow decodes the image.
    may_turn = picture.format != "PNG" or any(mark in data for mark in _PNG_EXIF)
    orientation = read_orientation(picture) if may_turn else 1
    is_sideways = orientation >= 5 and picture.format != "TIFF"  # Pillow's size of a TIFF is upright
    size = (picture.height, picture.width) if is_sideways else picture.size
    format = picture.format or ""
    notes = _find_notes(format, size, extension, picture, data, orientation)
    return EncodedImage(data, size, format, notes, orientation, jpeg, max_pixels)


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image of ``IMAGE_FORMATS`` (the first frame) to an upright RGB image.

    :func:`~bimodal_cl.files.image_modes.to_rgb` converts it, and the EXIF orientation is applied. The size in the
    header is checked before any pixel is decoded.

    Args:
        data: the bytes of the file.
        max_pixels: images with more pixels are refused.

    Raises:
        BadImage: the bytes are not an image, are incomplete, have more than ``max_pixels`` pixels, or hold values whose
            brightness is not defined.
    """
    return decode_picture(open_picture(data, max_pixels))


def decode_picture(picture: Image.Image) -> Image.Image:
    """Decode an image that :func:`open_picture` opened, as :func:`decode_image` does.

    Raises:
        BadImage: as :func:`decode_image`.
    """
    load_picture(picture)
    with _as_bad_image():
        return turn_upright(to_rgb(picture), read_orientation(picture))


def load_picture(picture: Image.Image) -> None:
    """Decode the pixels of an image that :func:`open_picture` opened; Pillow also turns a TIFF upright.

    Raises:
        BadImage: the bytes are damaged or incomplete.
    """
    with _as_bad_image(), _pixels_allowed(picture.width * picture.height):
        picture.load()


def turn_pixels(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return an upright view of stored pixels ``[height, width, 3]``, for an EXIF ``orientation`` from 1 to 8."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in _FAR_ACROSS:
        pixels = pixels[:, ::-1]
    return pixels[::-1] if orientation in _FAR_DOWN else pixels


def open_picture(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image of ``IMAGE_FORMATS`` with Pillow, which only reads the header.

    Raises:
        BadImage: the bytes are not an image, or have more than ``max_pixels`` pixels.
    """
    if not data:
        raise BadImage("zero_bytes", "zero bytes")
    with _as_bad_image(data), _pixels_allowed(max_pixels):
        picture = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
    _require_few_pixels(picture.size, max_pixels)
    return picture


@contextmanager
def _as_bad_image(data: bytes = b"") -> Iterator[None]:
    """Turn Pillow's exceptions into ``BadImage``, and suppress its warnings about large images and metadata."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (BadImage, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise BadImage("too_many_pixels", str(error)) from None
    except UndefinedRange as error:
        raise BadImage("undefined_range", str(error)) from None
    except UnidentifiedImageError:
        found = name_other_content(data)
        what = f"are {found}" if found else f"are not {', '.join(IMAGE_FORMATS[:8])} or another format that is read"
        raise BadImage("undecodable", f"not an image that can be read (its bytes {what})") from None
    except Exception as error:  # Pillow's decoders raise exceptions of any type
        text = " ".join(str(error).split())
        raise BadImage("undecodable", text or type(error).__name__) from None


@contextmanager
def _pixels_allowed(count: int) -> Iterator[None]:
    """Lift Pillow's own limit of pixels if ours is higher."""
    if Image.MAX_IMAGE_PIXELS is None or count <= 2 * Image.MAX_IMAGE_PIXELS:
        yield
        return
    with _PILLOW_LIMIT:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _require_few_pixels(size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise BadImage("too_many_pixels", f"{size[0]} x {size[1]} pixels, more than {max_pixels}")


def _find_notes(
    format: str,
    size: tuple[int, int],
    extension: str,
    picture: Image.Image | None = None,
    data: bytes = b"",
    orientation: int = 1,
) -> tuple[str, ...]:
    extension = f".{extension.lower().removeprefix('.')}"
    notes = {"wrong_extension": len(extension) > 1 and extension not in _EXTENSIONS.get(format, ())}
    if picture is not None:
        deep_png = format == "PNG" and data[_PNG_BIT_DEPTH] == 16
        notes["cmyk"] = picture.mode == "CMYK"
        notes["palette"] = picture.mode in ("P", "PA")
        notes["alpha"] = picture.mode in WITH_ALPHA or "transparency" in picture.info
        notes["sixteen_bit"] = deep_png or is_deep(picture.mode) or _stores_sixteen_bits(picture)
        notes["animated"] = format not in ("MPO", "PSD") and _is_animated(picture)  # previews and layers
        notes["exif_rotated"] = orientation != 1
    notes["extreme_aspect"] = max(size) > EXTREME_ASPECT * min(size)
    return tuple(kind for kind, found in notes.items() if found)


def _stores_sixteen_bits(picture: Image.Image) -> bool:
    """Return whether Pillow reduces colours to their high bytes, as for a TIFF of 16 bits per channel."""
    tiles: list[tuple[Any, ...]] = getattr(picture, "tile", [])
    return bool(tiles) and ";16" in str(tiles[0][3])


def _is_animated(picture: Image.Image) -> bool:
    try:
        return bool(getattr(picture, "is_animated", False))  # of a GIF, this reads the second frame
    except Exception:  # that frame is damaged; the first may still be whole
        return True
