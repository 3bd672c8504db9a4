"""Parse the headers of plain JPEG files, and decode them at a reduced scale.

At half the size, libjpeg computes 4 x 4 pixels of every block of 8 x 8 from the block's 4 x 4 lowest frequencies. This
saves the work on pixels that the resampling afterwards would average.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import simplejpeg

# libjpeg-turbo scales by any number of eighths, but has vector code for these only: 5/8 takes longer than full size.
DIVISORS = (8, 4, 2, 1)

_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_OTHER_FRAMES = (0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))  # lossless, hierarchical, arithmetic
_WITHOUT_LENGTH = (0x00, 0x01, *range(0xD0, 0xDA), 0xFF)
_START_OF_SCAN, _METADATA = 0xDA, 0xE1


class JpegHeader(NamedTuple):
    """The header of a plain JPEG.

    Args:
        width, height: as stored, pixels, >= 1.
        metadata: whether there is an APP1 segment (EXIF or XMP), which may contain an orientation.
    """

    width: int
    height: int
    metadata: bool


def read_header(data: bytes) -> JpegHeader | None:
    """Parse the header of a grey or three-colour JPEG of 8 bits; ``None`` for anything else or unusual."""
    if data[:2] != b"\xff\xd8":
        return None
    size: tuple[int, int] | None = None
    metadata = False
    position, end = 2, len(data) - 9
    while position < end and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == _START_OF_SCAN:
            return JpegHeader(*size, metadata) if size and min(size) > 0 else None
        if marker in _FRAMES and size is None:
            if data[position + 4] != 8 or data[position + 9] not in (1, 3):  # bits, components
                return None
            size = _word(data, position + 7), _word(data, position + 5)
        elif marker in _FRAMES or marker in _OTHER_FRAMES or marker in _WITHOUT_LENGTH:
            return None
        metadata = metadata or marker == _METADATA
        position += 2 + _word(data, position + 2)
    return None


def _word(data: bytes, position: int) -> int:
    return data[position] << 8 | data[position + 1]


def decode_scaled(data: bytes, header: JpegHeader, divisor: int) -> np.ndarray | None:
    """Decode to RGB at 1 / ``divisor`` of the size, uint8 ``[ceil(height / divisor), ceil(width / divisor), 3]``.

    Returns ``None`` if the decoder reports any defect, even one that it can ignore, and for images of fewer than 8
    pixels per side, which it may scale differently: it takes the scale as a minimum size.
    """
    if max(header.width, header.height) < max(DIVISORS):
        return None
    width, height = -(-header.width // divisor), -(-header.height // divisor)
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)
    except (ValueError, RuntimeError):
        return None
    return pixels if pixels.shape == (height, width, 3) else None
