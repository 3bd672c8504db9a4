"""The members of a tar from its headers: POSIX.1-2001 (ustar and pax) with GNU long names.

``tarfile`` is not used because a million ``TarInfo`` objects cost half a minute. Headers are walked one by one where
members are large, so that nothing else is read. Where they are small, so that every page of the file holds a header
anyway, all headers of a stretch are found at once: the blocks that look like headers, as far as each one's size leads
to the next one. A payload that looks like a header only ends a stretch.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bimodal_cl.errors import UserError

_BLOCK = 512
_ZERO_BLOCK = bytes(_BLOCK)
# name, (mode, uid, gid), size, (mtime, checksum), type, (link name), magic
_HEADER = struct.Struct("100s24x12s20xc100x6s")
_NAME_SIZE = 100
_SIZE, _CHECKSUM, _TYPE, _MAGIC, _MAGIC_END, _PREFIX, _PREFIX_END = 124, 148, 156, 257, 262, 345, 500
_FILE_TYPES = (b"0", b"\0", b"7")
_IS_FILE = np.isin(np.arange(256), [ord(kind) for kind in _FILE_TYPES])
_USTA = int.from_bytes(b"usta", "little")
_LOW_BYTES, _EIGHT = np.uint64(0x00FF00FF00FF00FF), np.uint64(8)
_MAX_DIGITS = 20  # of a length or size in a pax record: 64 bits
_OCTAL = 8 ** np.arange(10, -1, -1, dtype=np.int64)

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}

_STRETCH = 8192  # blocks that are looked at together: 4 MiB
_CHECKED = 240  # headers whose checksums are computed together: less than the 128 KiB that malloc gives back at once
_STEPS, _MANY_STEPS = 32, 8192  # headers walked one by one before the next stretch is tried
_DENSE = 8192  # bytes a member, on average: below, every page or two holds a header
_SPARSE = 131_072  # bytes a member: above, reading ahead would only read pixels


@dataclass(frozen=True)
class Damage:
    """Where a tar stops being one.

    Args:
        kind: "truncated" or "garbage", of ``SHARD_KINDS``.
        reason: what was found, for people, with the byte.
    """

    kind: str
    reason: str


@dataclass(frozen=True)
class TarMembers:
    """The regular files of a tar, in order, up to its end or to the first damage.

    Args:
        header: where each one's header is, bytes, int64 ``[members]``.
        size: bytes of the payload, which follows the header, int64 ``[members]``.
        fields: the name field of each header, as it is there, uint8 ``[members, width]`` without columns of zeros at
            the end.
        long_names: names that are elsewhere (GNU's, pax's, ustar's with a prefix), by member.
        damage: what ends the tar before its end; None where nothing does.
    """

    header: np.ndarray
    size: np.ndarray
    fields: np.ndarray
    long_names: dict[int, bytes]
    damage: Damage | None

    def __len__(self) -> int:
        return len(self.header)

    @property
    def offset(self) -> np.ndarray:
        """Where each payload begins, bytes, int64 ``[members]``."""
        return self.header + _BLOCK

    def name(self, member: int) -> bytes:
        """The name of a member, as it is there."""
        if member in self.long_names:
            return self.long_names[member]
        return self.fields[member].tobytes().partition(b"\0")[0]


@contextmanager
def mapped(path: str | Path, called: str | Path) -> Iterator[mmap.mmap | None]:
    """Give the bytes of a tar, or None where it is empty.

    Raises:
        UserError: it cannot be opened, or is compressed, whatever its name; names it as it is ``called``.
    """
    try:
        with Path(path).open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                yield None
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                _refuse_compressed(data, called)
                yield data
    except OSError as error:
        raise UserError(f"shard {called}: cannot be opened: {error.strerror}") from None


def _refuse_compressed(data: mmap.mmap, called: str | Path) -> None:
    """Refuse what is compressed: a row in the middle of it cannot be reached without all that stands before."""
    for mark, kind in _COMPRESSED.items():
        if data[: len(mark)] == mark and data[_MAGIC:_MAGIC_END] != b"ustar":
            file = str(called).rpartition("/")[2]
            how = "unzip it and pack it as a tar" if kind == "zip" else f"`{kind} -dc < {file} > plain.tar` unpacks it"
            raise UserError(
                f"shard {called}: is compressed ({kind}); shards must be plain tars, since rows are read in any order: "
                f"{how}"
            )


def walk_tar(data: mmap.mmap | None) -> TarMembers:
    """Find the members of a tar from its headers, whose checksums are compared."""
    if data is None:
        none = np.empty(0, np.int64)
        return TarMembers(none, none, np.empty((0, _NAME_SIZE), np.uint8), {}, Damage("truncated", "is empty"))
    walk = _Walk(data)
    damage = walk.run()
    files, long_names, stepped = walk.result()
    wrong = _find_wrong_checksum(data, stepped)
    count = len(files.places)
    if wrong is not None:
        damage = Damage("garbage", f"no tar header at byte {wrong} (wrong checksum): garbage, or not a tar")
        count = int(np.searchsorted(files.places, wrong))
    places = files.places[:count]
    by_place = {place: number for number, place in enumerate(places.tolist())} if long_names else {}
    names = {by_place[place]: name for place, name in long_names.items() if place in by_place}
    return TarMembers(places, files.sizes[:count], files.fields[:count], names, damage)


@dataclass(frozen=True)
class _Files:
    """Headers of regular files, in order: columns ``[files]``; ``fields`` are names, uint8 ``[files, width]``."""

    places: np.ndarray
    sizes: np.ndarray
    fields: np.ndarray


class _Walk:
    """From header to header."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._end = data, len(data)
        self._position = 0
        self._long_name: bytes | None = None
        self._long_size: int | None = None
        self._parts: list[_Files] = []
        self._steps: list[tuple[int, int]] = []  # of files since the last stretch
        self._stepped: list[int] = []
        self._long_names: dict[int, bytes] = {}

    def run(self) -> Damage | None:
        """Walk to the end, or to damage, which is returned."""
        steps = _STEPS
        while self._position < self._end:
            begin = self._position
            for _ in range(steps):
                ended, damage = self._step()
                if ended:
                    return damage
            mean = (self._position - begin) // steps
            if mean >= _SPARSE and hasattr(mmap, "MADV_RANDOM"):
                self._data.madvise(mmap.MADV_RANDOM)
            # Where a stretch finds little, ever more headers are taken one by one before the next one is tried.
            steps = min(steps * 4, _MANY_STEPS)
            while mean < _DENSE and self._stretch() >= _STRETCH * _BLOCK // _DENSE:
                steps = _STEPS
        return None

    def result(self) -> tuple[_Files, dict[int, bytes], np.ndarray]:
        """All files, their long names by place, and the places of headers whose checksums are still to be compared."""
        self._close_steps()
        places, sizes = (
            np.concatenate([getattr(part, column) for part in self._parts]) for column in ("places", "sizes")
        )
        fields = np.zeros((len(places), max(part.fields.shape[1] for part in self._parts)), np.uint8)
        first = 0
        for part in self._parts:
            fields[first : first + len(part.fields), : part.fields.shape[1]] = part.fields
            first += len(part.fields)
        return _Files(places, sizes, fields), self._long_names, np.asarray(self._stepped, dtype=np.int64)

    def _close_steps(self) -> None:
        places, sizes = np.asarray(self._steps, dtype=np.int64).reshape(-1, 2).T
        self._parts.append(_Files(places, sizes, _trim(_gather(self._data, places, 0, _NAME_SIZE))))
        self._steps = []

    def _step(self) -> tuple[bool, Damage | None]:
        """Take one header. True where the tar ends, with the damage if it is not its proper end."""
        data, position = self._data, self._position
        if position == self._end:
            return True, None
        if position + _BLOCK > self._end:
            left = self._end - position
            return True, Damage("truncated", f"truncated: {left} bytes where a header begins, at byte {position}")
        raw_name, raw_size, kind, magic = _HEADER.unpack_from(data, position)
        if not raw_name[0] and data[position : position + _BLOCK] == _ZERO_BLOCK:
            return True, None
        size = _parse_size(raw_size)
        if size is None:
            return True, Damage("garbage", f"no tar header at byte {position}: garbage, or not a tar")
        regular = kind in _FILE_TYPES
        if regular and self._long_size is not None:
            size = self._long_size
        start = position + _BLOCK
        after = start + (size + _BLOCK - 1 & -_BLOCK)
        if after > self._end:
            if _find_wrong_checksum(data, np.asarray([position])) is not None:
                return True, Damage("garbage", f"no tar header at byte {position}: garbage, or not a tar")
            return True, Damage(
                "truncated",
                f"truncated: the member at byte {position} needs {after - start} bytes, {self._end - start} are left",
            )
        self._stepped.append(position)
        if regular:
            self._steps.append((position, size))
        self._position = after
        if kind == b"x":
            parsed = _parse_pax(data[start : start + size])
            if parsed is None:
                return True, Damage("garbage", f"garbage in the pax header at byte {start}")
            self._long_name, self._long_size = parsed[0] or self._long_name, parsed[1]
        elif kind == b"L":
            self._long_name = data[start : start + size].partition(b"\0")[0]
        elif kind not in b"gK":
            if regular:
                self._take_name(position, magic == b"ustar\0" and data[position + _PREFIX] != 0)
            self._long_name = self._long_size = None  # a folder, link or device spends its long name too
        return False, None

    def _take_name(self, place: int, has_prefix: bool) -> None:
        """Note the long name of the file whose header is at ``place``, if it has one."""
        if self._long_name is not None:
            self._long_names[place] = self._long_name
        elif has_prefix:
            prefix = self._data[place + _PREFIX : place + _PREFIX_END].partition(b"\0")[0]
            name = self._data[place : place + _NAME_SIZE].partition(b"\0")[0]
            self._long_names[place] = prefix + b"/" + name

    def _stretch(self) -> int:
        """Take the headers from here on that can be found together, and return their number."""
        if self._long_name is not None or self._long_size is not None:
            return 0
        files, prefixed, count, self._position = _find_stretch(self._data, self._position, self._end)
        if count:
            self._close_steps()
            self._parts.append(files)
            for place in files.places[prefixed].tolist():
                self._take_name(place, True)
        return count


def _find_stretch(data: mmap.mmap, position: int, end: int) -> tuple[_Files, np.ndarray, int, int]:
    """Return the files among the headers that follow one another from ``position`` on.

    The headers end before one with an odd size or a wrong checksum, before one that gives the next member a name or a
    size, and before a member that does not end inside the file.

    Returns:
        The files; which of them have a ustar prefix, bool; the number of all headers; and where the next one is.
    """
    num_blocks = min(_STRETCH, (end - position) // _BLOCK)
    magic = np.ndarray((num_blocks,), "<u4", data, position + _MAGIC, (_BLOCK,))
    places = np.flatnonzero(magic == _USTA) * _BLOCK + position
    digits = _gather(data, places, _SIZE, 11) - np.uint8(ord("0"))
    sizes = digits @ _OCTAL
    after = places + _BLOCK + (sizes + _BLOCK - 1 & -_BLOCK)
    kinds = _gather(data, places, _TYPE, 1)[:, 0]
    good = (digits.max(axis=1, initial=0) < 8) & (after <= end) & (kinds != ord("L"))
    pax = np.flatnonzero(good & (kinds == ord("x")))
    if len(pax):
        good[pax] = ~_may_name_or_size(data, places[pax] + _BLOCK, sizes[pax])
    good[:1] &= places[:1] == position
    good[1:] &= after[:-1] == places[1:]
    count = int(np.argmin(np.append(good, False)))
    count = int(np.argmin(np.append(_have_checksums(data, places[:count]), False)))
    if count:
        position = int(after[count - 1])
    is_file = _IS_FILE[kinds[:count]]
    places, sizes = places[:count][is_file], sizes[:count][is_file]
    prefixed = (_gather(data, places, _PREFIX, 1) != 0) & (_gather(data, places, _MAGIC_END, 1) == 0)
    files = _Files(places, sizes, _trim(_gather(data, places, 0, _NAME_SIZE)))
    return files, prefixed[:, 0], count, position


def _trim(fields: np.ndarray) -> np.ndarray:
    """Copy name fields without the columns of zeros at their end."""
    return fields[:, : int(np.flatnonzero(fields.any(axis=0)).max(initial=-1)) + 1].copy()


def _may_name_or_size(data: mmap.mmap, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Whether pax records may hold a path or a size, bool ``[records]``; true of long ones without a look."""
    width = int(sizes.max(initial=5))
    if width > _BLOCK // 4 or int(starts.max(initial=0)) + width > len(data):
        return np.ones(len(starts), dtype=bool)
    text = _gather(data, starts, 0, width)
    equals = text[:, 4:] == ord("=")
    return (equals & ((text[:, :-4] == ord("p")) | (text[:, :-4] == ord("s")))).any(axis=1)


def _gather(data: mmap.mmap, places: np.ndarray, begin: int, width: int) -> np.ndarray:
    """Copy ``width`` bytes from ``begin`` bytes after each place (of a whole header): uint8 ``[places, width]``."""
    if not len(places):
        return np.empty((0, width), np.uint8)
    # One item of `width` bytes at every byte of the file: taking items is quicker than taking rows of bytes.
    every = np.ndarray((len(data) - begin - width + 1,), f"V{width}", data, begin, (1,))
    return every[places].view(np.uint8).reshape(-1, width)


def _parse_size(field: bytes) -> int | None:
    """Read a size: octal digits, padded or blank, or GNU's base 256. None where it is neither."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        return None
    return int(digits or b"0", 8)


def _parse_pax(records: bytes) -> tuple[bytes | None, int | None] | None:
    """Return the path and size that a pax header gives to the next member, where it does; None: garbage."""
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


def _find_wrong_checksum(data: mmap.mmap, headers: np.ndarray) -> int | None:
    """Return the offset of the first header whose bytes do not add up to its checksum."""
    wrong = np.flatnonzero(~_have_checksums(data, headers))
    return int(headers[wrong[0]]) if len(wrong) else None


def _have_checksums(data: mmap.mmap, headers: np.ndarray) -> np.ndarray:
    """Whether the bytes of each header add up to its checksum, whose own bytes count as spaces: bool ``[headers]``."""
    fields = _gather(data, headers, _CHECKSUM, 8)
    expected = _parse_octal(fields) + _sum_bytes(fields) - 8 * ord(" ")
    sums = np.empty(len(headers), np.int64)
    for first in range(0, len(headers), _CHECKED):
        some = headers[first : first + _CHECKED]
        sums[first : first + len(some)] = _sum_bytes(_gather(data, some, 0, _BLOCK))
    return sums == expected


def _sum_bytes(rows: np.ndarray) -> np.ndarray:
    """Add up rows of at most 512 bytes, uint8 ``[rows, 8 n]``, which are overwritten: int64 ``[rows]``.

    A word holds four 16-bit sums, each of at most 512 * 255 / 4.
    """
    words = rows.view(np.uint64)
    sums = words & _LOW_BYTES
    words >>= _EIGHT
    words &= _LOW_BYTES
    sums += words
    return sums.sum(axis=1).view(np.uint16).reshape(-1, 4).sum(axis=1, dtype=np.int64)


def _parse_octal(fields: np.ndarray) -> np.ndarray:
    """Read checksums, uint8 ``[headers, 8]``; -1 where it is none. Nearly all are six digits, NUL, space."""
    numbers = fields[:, :6] - np.uint8(ord("0"))
    values = numbers @ _OCTAL[-6:]
    odd = (numbers > 7).any(axis=1) | (fields[:, 6] != 0) | (fields[:, 7] != ord(" "))
    for number in np.flatnonzero(odd).tolist():
        digits = fields[number].tobytes().strip(b" \0")
        values[number] = int(digits, 8) if digits and not digits.strip(b"01234567") else -1
    return values
