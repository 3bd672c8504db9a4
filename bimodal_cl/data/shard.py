"""The rows of one shard, found from the tar's headers: where each image and text lies, without decoding any.

Tar's layout is POSIX.1-2001 (ustar and pax) with GNU long names. It is walked here and not by ``tarfile`` because an
epoch opens every shard again in every worker, and 20,000 ``TarInfo`` objects cost a second.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bimodal_cl.data.manifest import CAPTIONS_MODES, CaptionsMode
from bimodal_cl.errors import UserError, did_you_mean

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
TEXT_EXTENSION = ".txt"

_BLOCK = 512
_ZERO_BLOCK = bytes(_BLOCK)
# name, (mode, uid, gid), size, (mtime, checksum), type, (link name), magic
_HEADER = struct.Struct("100s24x12s20xc100x6s")
_PREFIX = slice(345, 500)
_CHECKSUM = slice(148, 156)
_FILE_TYPES = (b"0", b"\0", b"7")


@dataclass(frozen=True)
class ShardIndex:
    """Where the rows of one shard lie. A row is a run of adjacent members with one key, an image among them.

    Args:
        captions: how texts are split, as in the manifest.
        keys: the name of each row's members without the extension.
        image_ext: extension of each row's image, lower case, with the dot.
        image_offset, image_size: bytes, int64 ``[rows]``.
        text_offset, text_size: bytes, int64 ``[rows]``; offset -1 where the row has no ``.txt``, -2 where its ``.txt``
            stands elsewhere in the shard.
        caption_count: captions of each row, int64 ``[rows]``; 0 where there is no text beside it or it is blank.
        counts: what was found, by kind: faults of :mod:`bimodal_cl.data.faults`.
    """

    captions: CaptionsMode
    keys: list[str]
    image_ext: list[str]
    image_offset: np.ndarray
    image_size: np.ndarray
    text_offset: np.ndarray
    text_size: np.ndarray
    caption_count: np.ndarray
    counts: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)


def split_captions(text: bytes, captions: CaptionsMode) -> list[str]:
    """Split a ``.txt`` into its captions, stripped: non-empty lines (``"lines"``) or the whole text (``"whole"``).

    Bytes that are not UTF-8 become U+FFFD, so that one bad byte moves no caption's id.
    """
    whole = text.decode("utf-8", errors="replace").removeprefix("\ufeff").strip()
    if captions == "whole" or "\n" not in whole:
        return [whole] if whole else []
    return [line for line in map(str.strip, whole.split("\n")) if line]


def read_row(path: str | Path, index: ShardIndex, row: int) -> tuple[bytes, list[str]]:
    """Read one row's encoded image and its captions (``[]`` where it has none).

    Raises:
        UserError: the shard cannot be opened or is shorter than its index.
    """
    descriptor = open_shard(path)
    try:
        return read_row_at(descriptor, path, index, row)
    finally:
        os.close(descriptor)


def open_shard(path: str | Path) -> int:
    """Open a shard for reading and return its file descriptor, which is the caller's to close.

    Raises:
        UserError: it cannot be opened.
    """
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"shard {path}: cannot be opened: {error.strerror}") from None


def read_row_at(descriptor: int, path: str | Path, index: ShardIndex, row: int) -> tuple[bytes, list[str]]:
    """Do what :func:`read_row` does, from an open file; the file's position is neither used nor moved."""
    image = read_exactly(descriptor, path, int(index.image_size[row]), int(index.image_offset[row]))
    if index.text_offset[row] < 0:
        return image, []
    text = read_exactly(descriptor, path, int(index.text_size[row]), int(index.text_offset[row]))
    return image, split_captions(text, index.captions)


def read_exactly(descriptor: int, path: str | Path, size: int, offset: int) -> bytes:
    """Read ``size`` bytes at ``offset`` of an open shard.

    Raises:
        UserError: the file ends before.
    """
    data = os.pread(descriptor, size, offset)
    if len(data) < size:
        raise UserError(f"shard {path}: ends inside the member at byte {offset}; it changed while it was read")
    return data


def index_shard(path: str | Path, captions: CaptionsMode = "lines") -> ShardIndex:
    """Find the rows of a shard from its headers; of the payloads only the short ``.txt`` are looked at.

    The key is the name up to its last dot, so ``a.b.jpg`` has the key ``a.b``. An extension that comes a second time
    starts a new row, so samples of one key stay apart. Hidden files, links and folders are not rows.

    Raises:
        UserError: the file cannot be opened, is empty, truncated or no tar; the message names it and the byte.
    """
    if captions not in CAPTIONS_MODES:
        raise UserError(f"captions {captions!r}{did_you_mean(str(captions), CAPTIONS_MODES)}")
    with _mapped(path) as data:
        return _group_rows(_list_members(path, data), data, captions)


def list_members(path: str | Path) -> list[tuple[str, int, int]]:
    """Return name, offset and size (bytes) of each regular file of a tar, in order, hidden ones left out.

    Raises:
        UserError: as :func:`index_shard`.
    """
    with _mapped(path) as data:
        return _list_members(path, data)


@contextmanager
def _mapped(path: str | Path) -> Iterator[mmap.mmap]:
    try:
        with Path(path).open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise UserError(f"shard {path}: is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield data
    except OSError as error:
        raise UserError(f"shard {path}: cannot be opened: {error.strerror}") from None


def _list_members(path: str | Path, data: mmap.mmap) -> list[tuple[str, int, int]]:
    members, headers = _walk(path, data)
    wrong = _find_wrong_checksum(data, np.asarray(headers, dtype=np.int64))
    if wrong is not None:
        raise UserError(f"shard {path}: no tar header at byte {wrong} (wrong checksum): garbage, or not a tar")
    return members


def _group_rows(members: list[tuple[str, int, int]], data: mmap.mmap, captions: CaptionsMode) -> ShardIndex:
    keys: list[str] = []
    image_ext: list[str] = []
    places: list[tuple[int, int, int, int, int]] = []
    key: str | None = None
    image: tuple[str, int, int] | None = None
    text: tuple[int, int] | None = None

    def end_row() -> None:
        if key is None or image is None:
            return
        start, size = text or (-1, 0)
        count = len(split_captions(data[start : start + size], captions)) if size else 0
        keys.append(key)
        image_ext.append(image[0])
        places.append((image[1], image[2], start, size, count))

    for name, offset, size in members:
        stem, dot, ext = name.rpartition(".")
        if not dot or "/" in ext:
            continue
        ext = "." + ext.lower()
        is_image, is_text = ext in IMAGE_EXTENSIONS, ext == TEXT_EXTENSION
        if stem != key or (is_text and text is not None) or (is_image and image is not None and image[0] == ext):
            end_row()
            key, image, text = stem, None, None
        if is_image and image is None:
            image = (ext, offset, size)
        elif is_text:
            text = (offset, size)
    end_row()
    columns = np.asarray(places, dtype=np.int64).reshape(-1, 5).T
    return ShardIndex(captions, keys, image_ext, *columns)


def _walk(path: str | Path, data: mmap.mmap) -> tuple[list[tuple[str, int, int]], list[int]]:
    """Return the regular files' (name, payload offset, size), and the offset of every header."""
    members: list[tuple[str, int, int]] = []
    headers: list[int] = []
    position, end = 0, len(data)
    long_name: str | None = None
    long_size: int | None = None
    unpack = _HEADER.unpack_from
    while position < end:
        if position + _BLOCK > end:
            raise UserError(
                f"shard {path}: truncated: {end - position} bytes where a header begins, at byte {position}"
            )
        raw_name, raw_size, kind, magic = unpack(data, position)
        if not raw_name[0] and data[position : position + _BLOCK] == _ZERO_BLOCK:
            break
        try:
            size = int(raw_size[:11], 8)
        except ValueError:
            size = _parse_size(path, raw_size, position)
        headers.append(position)
        start = position + _BLOCK
        regular = kind in _FILE_TYPES
        if regular and long_size is not None:
            size = long_size
        position = start + (size + _BLOCK - 1 & -_BLOCK)
        if position > end:
            raise UserError(
                f"shard {path}: truncated or not a tar: the member at byte {start - _BLOCK} needs "
                f"{position - start} bytes, {end - start} are left"
            )
        if regular:
            if long_name is not None:
                name = long_name
            else:
                name = raw_name.partition(b"\0")[0].decode("utf-8", "backslashreplace")
                if magic == b"ustar\0" and data[start - _BLOCK + _PREFIX.start]:
                    prefix = data[start - _BLOCK : start][_PREFIX].partition(b"\0")[0]
                    name = prefix.decode("utf-8", "backslashreplace") + "/" + name
            long_name = long_size = None
            name = name.removeprefix("./")
            if name and name[name.rfind("/") + 1 :][:1] != ".":
                members.append((name, start, size))
        elif kind == b"L":
            long_name = data[start : start + size].rstrip(b"\0").decode("utf-8", "backslashreplace")
        elif kind == b"x":
            long_name, long_size = _parse_pax(path, data[start : start + size], start, long_name)
        elif kind not in b"gK":
            long_name = long_size = None  # a folder, link or device: its long name is spent
    return members, headers


def _parse_size(path: str | Path, field: bytes, position: int) -> int:
    """Read the forms of the size that are not eleven octal digits: padded, blank, or GNU's base 256."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        raise UserError(f"shard {path}: no tar header at byte {position}: garbage, or not a tar") from None


def _parse_pax(path: str | Path, records: bytes, start: int, name: str | None) -> tuple[str | None, int | None]:
    """Return the path (``name`` where there is none) and size that a pax header gives to the next member."""
    size = None
    position = 0
    while position < len(records):
        digits, _, _ = records[position:].partition(b" ")
        if not digits.isdigit() or int(digits) <= len(digits):
            raise UserError(f"shard {path}: garbage in the pax header at byte {start + position}")
        field, _, value = records[position + len(digits) + 1 : position + int(digits) - 1].partition(b"=")
        if field == b"path":
            name = value.decode("utf-8", "backslashreplace")
        elif field == b"size" and value.isdigit():
            size = int(value)
        position += int(digits)
    return name, size


def _find_wrong_checksum(data: mmap.mmap, headers: np.ndarray) -> int | None:
    """Return the offset of the first header whose bytes do not add up to its checksum."""
    file = np.frombuffer(data, dtype=np.uint8, count=len(data) // _BLOCK * _BLOCK).reshape(-1, _BLOCK)
    for first in range(0, len(headers), 1024):
        offsets = headers[first : first + 1024]
        blocks = file[offsets // _BLOCK]
        stored = [_parse_octal(field) for field in np.ascontiguousarray(blocks[:, _CHECKSUM]).view("S8")[:, 0].tolist()]
        blocks[:, _CHECKSUM] = ord(" ")
        wrong = np.flatnonzero(_sum_bytes(blocks) != np.asarray(stored))
        if len(wrong):
            return int(offsets[wrong[0]])
    return None


def _sum_bytes(blocks: np.ndarray) -> np.ndarray:
    """Add up the bytes of each header, uint8 ``[headers, 512]``, four 16-bit sums (at most 512 * 255 / 4) to a word."""
    words = blocks.view(np.uint64)
    low = np.uint64(0x00FF00FF00FF00FF)
    sums = ((words & low) + (words >> np.uint64(8) & low)).sum(axis=1)
    return sums.view(np.uint16).reshape(-1, 4).sum(axis=1, dtype=np.int64)


def _parse_octal(field: bytes) -> int:
    try:
        return int(field.strip(b" \0"), 8)
    except ValueError:
        return -1
