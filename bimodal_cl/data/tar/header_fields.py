"""Parse the fields of tar headers: sizes, checksums and pax records, those of many headers at once.

The format is POSIX.1-2001 (ustar and pax).
"""

from __future__ import annotations

import mmap

import numpy as np

BLOCK = 512  # bytes of a header; payloads are padded to a multiple of it
NAME_SIZE = 100
# Offsets of fields in a header, bytes.
SIZE, CHECKSUM, TYPE, MAGIC, MAGIC_END, PREFIX, PREFIX_END = 124, 148, 156, 257, 262, 345, 500

_LOW_BYTES, _EIGHT = np.uint64(0x00FF00FF00FF00FF), np.uint64(8)
_MAX_DIGITS = 20  # of a length or size in a pax record: 64 bits
OCTAL = 8 ** np.arange(10, -1, -1, dtype=np.int64)
_CHECKED = 240  # headers whose checksums are computed together: less than the 128 KiB that malloc returns at once


def may_name_or_size(data: mmap.mmap, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return whether pax records may hold a path or a size, bool ``[records]``; True for long ones, unread."""
    width = int(sizes.max(initial=5))
    if width > BLOCK // 4 or int(starts.max(initial=0)) + width > len(data):
        return np.ones(len(starts), dtype=bool)
    text = gather_field(data, starts, 0, width)
    equals = text[:, 4:] == ord("=")
    return (equals & ((text[:, :-4] == ord("p")) | (text[:, :-4] == ord("s")))).any(axis=1)


def gather_field(data: mmap.mmap, places: np.ndarray, begin: int, width: int) -> np.ndarray:
    """Copy ``width`` bytes at offset ``begin`` of the headers at some places: uint8 ``[places, width]``."""
    if not len(places):
        return np.empty((0, width), np.uint8)
    # A view with one item of `width` bytes at every byte of the file: indexing items is faster than rows of bytes.
    every = np.ndarray((len(data) - begin - width + 1,), f"V{width}", data, begin, (1,))
    return every[places].view(np.uint8).reshape(-1, width)


def parse_size(field: bytes) -> int | None:
    """Parse a size: octal digits, padded or blank, or GNU's base 256. None if it is neither."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        return None
    return int(digits or b"0", 8)


def parse_pax(records: bytes) -> tuple[bytes | None, int | None] | None:
    """Return the path and the size that a pax header gives the next member, None each if absent; None if damaged."""
    name, size = None, None
    position = 0
    while position < len(records):
        digits, space, _ = records[position : position + _MAX_DIGITS + 1].partition(b" ")
        if not space or not digits.isdigit() or int(digits) <= len(digits):
            return None
        field, _, value = records[position + len(digits) + 1 : position + int(digits) - 1].partition(b"=")
        if field == b"path":
            name = value
        elif field == b"size" and value.isdigit():
            if len(value) > _MAX_DIGITS:
                return None
            size = int(value)
        position += int(digits)
    return name, size


def find_wrong_checksum(data: mmap.mmap, headers: np.ndarray) -> int | None:
    """Return the offset of the first header whose bytes do not add up to its checksum, or None."""
    wrong = np.flatnonzero(~match_checksums(data, headers))
    return int(headers[wrong[0]]) if len(wrong) else None


def match_checksums(data: mmap.mmap, headers: np.ndarray) -> np.ndarray:
    """Return whether the bytes of each header, those of the checksum as spaces, add up to it: bool ``[headers]``."""
    fields = gather_field(data, headers, CHECKSUM, 8)
    expected = _parse_octal(fields) + _sum_bytes(fields) - 8 * ord(" ")
    sums = np.empty(len(headers), np.int64)
    for first in range(0, len(headers), _CHECKED):
        some = headers[first : first + _CHECKED]
        sums[first : first + len(some)] = _sum_bytes(gather_field(data, some, 0, BLOCK))
    return sums == expected


def _sum_bytes(rows: np.ndarray) -> np.ndarray:
    """Add up rows of at most 512 bytes, uint8 ``[rows, 8 n]``, and overwrite them: int64 ``[rows]``.

    A word holds four 16-bit sums, each of at most 512 * 255 / 4.
    """
    words = rows.view(np.uint64)
    sums = words & _LOW_BYTES
    words >>= _EIGHT
    words &= _LOW_BYTES
    sums += words
    return sums.sum(axis=1).view(np.uint16).reshape(-1, 4).sum(axis=1, dtype=np.int64)


def _parse_octal(fields: np.ndarray) -> np.ndarray:
    """Parse checksums, uint8 ``[headers, 8]``; -1 for what is not one. Nearly all are six digits, NUL, space."""
    numbers = fields[:, :6] - np.uint8(ord("0"))
    values = numbers @ OCTAL[-6:]
    odd = (numbers > 7).any(axis=1) | (fields[:, 6] != 0) | (fields[:, 7] != ord(" "))
    for number in np.flatnonzero(odd).tolist():
        digits = fields[number].tobytes().strip(b" \0")
        values[number] = int(digits, 8) if digits and not digits.strip(b"01234567") else -1
    return values
