"""Find the members of a tar from its headers: POSIX.1-2001 (ustar and pax) with GNU long names.

``tarfile`` is not used because a million ``TarInfo`` objects take half a minute. Headers of large members are read one
by one, so that no payload is read. If members are small, every page of the file holds a header anyway, and all headers
of a stretch are found at once: the blocks that look like headers, as far as each one's size leads to the next one. A
payload that looks like a header only ends a stretch.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass

import numpy as np

from bimodal_cl.data.tar.header_fields import (
    BLOCK,
    MAGIC,
    MAGIC_END,
    NAME_SIZE,
    OCTAL,
    PREFIX,
    PREFIX_END,
    SIZE,
    TYPE,
    find_wrong_checksum,
    gather_field,
    match_checksums,
    may_name_or_size,
    parse_pax,
    parse_size,
)

_ZERO_BLOCK = bytes(BLOCK)
# name, (mode, uid, gid), size, (mtime, checksum), type, (link name), magic
_HEADER = struct.Struct("100s24x12s20xc100x6s")
_FILE_TYPES = (b"0", b"\0", b"7")
_IS_FILE = np.isin(np.arange(256), [ord(kind) for kind in _FILE_TYPES])
_USTA = int.from_bytes(b"usta", "little")

_STRETCH = 8192  # blocks that are searched together: 4 MiB
_STEPS, _MANY_STEPS = 32, 8192  # headers that are read one by one before the next stretch is tried
_DENSE = 8192  # mean bytes per member below which every page or two holds a header
_SPARSE = 131_072  # mean bytes per member above which the system's read-ahead would only read pixels


@dataclass(frozen=True)
class Damage:
    """What ends a tar early.

    Args:
        kind: "truncated" or "garbage", of ``SHARD_KINDS``.
        reason: what was found, for messages, with its byte offset.
    """

    kind: str
    reason: str


@dataclass(frozen=True)
class TarMembers:
    """The regular files of a tar, in order, up to its end or to the first damage.

    Args:
        header: offset of each header, bytes, int64 ``[members]``.
        size: of each payload, which follows the header, bytes, int64 ``[members]``.
        fields: the name field of each header as stored, uint8 ``[members, width]``, without zero columns at the end.
        long_names: by member, the names that are stored elsewhere (GNU's, pax's, and ustar's with a prefix).
        damage: what ends the tar early; None for a whole tar.
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
        """Offset of each payload, bytes, int64 ``[members]``."""
        return self.header + BLOCK

    def name(self, member: int) -> bytes:
        """Return the name of a member as it is stored."""
        if member in self.long_names:
            return self.long_names[member]
        return self.fields[member].tobytes().partition(b"\0")[0]


def walk_tar(data: mmap.mmap | None) -> TarMembers:
    """Find the members of a tar from its headers, and verify their checksums.

    Args:
        data: the bytes of the tar; None for an empty file.
    """
    if data is None:
        none = np.empty(0, np.int64)
        return TarMembers(none, none, np.empty((0, NAME_SIZE), np.uint8), {}, Damage("truncated", "is empty"))
    walk = _Walk(data)
    damage = walk.run()
    files, long_names, stepped = walk.result()
    wrong = find_wrong_checksum(data, stepped)
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
    """One pass over a tar, from header to header."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._end = data, len(data)
        self._position = 0
        self._long_name: bytes | None = None
        self._long_size: int | None = None
        self._parts: list[_Files] = []
        self._steps: list[tuple[int, int]] = []  # offset and size of the files since the last stretch
        self._stepped: list[int] = []
        self._long_names: dict[int, bytes] = {}

    def run(self) -> Damage | None:
        """Walk to the end, or to the first damage, which is returned."""
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
            # If a stretch finds few headers, more and more are read one by one before the next stretch is tried.
            steps = min(steps * 4, _MANY_STEPS)
            while mean < _DENSE and self._stretch() >= _STRETCH * BLOCK // _DENSE:
                steps = _STEPS
        return None

    def result(self) -> tuple[_Files, dict[int, bytes], np.ndarray]:
        """Return all files, their long names by place, and the places of headers with unverified checksums."""
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
        self._parts.append(_Files(places, sizes, _trim(gather_field(self._data, places, 0, NAME_SIZE))))
        self._steps = []

    def _step(self) -> tuple[bool, Damage | None]:
        """Read one header. Return whether the tar ends here, and the damage if this is not its proper end."""
        data, position = self._data, self._position
        if position == self._end:
            return True, None
        if position + BLOCK > self._end:
            left = self._end - position
            return True, Damage("truncated", f"truncated: {left} bytes where a header begins, at byte {position}")
        raw_name, raw_size, kind, magic = _HEADER.unpack_from(data, position)
        if not raw_name[0] and data[position : position + BLOCK] == _ZERO_BLOCK:
            return True, None
        size = parse_size(raw_size)
        if size is None:
            return True, Damage("garbage", f"no tar header at byte {position}: garbage, or not a tar")
        regular = kind in _FILE_TYPES
        if regular and self._long_size is not None:
            size = self._long_size
        start = position + BLOCK
        after = start + (size + BLOCK - 1 & -BLOCK)
        if after > self._end:
            if find_wrong_checksum(data, np.asarray([position])) is not None:
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
            parsed = parse_pax(data[start : start + size])
            if parsed is None:
                return True, Damage("garbage", f"garbage in the pax header at byte {start}")
            self._long_name, self._long_size = parsed[0] or self._long_name, parsed[1]
        elif kind == b"L":
            self._long_name = data[start : start + size].partition(b"\0")[0]
        elif kind not in b"gK":
            if regular:
                self._take_name(position, magic == b"ustar\0" and data[position + PREFIX] != 0)
            self._long_name = self._long_size = None  # a folder, link or device uses up its long name too
        return False, None

    def _take_name(self, place: int, has_prefix: bool) -> None:
        """Store the long name of the file whose header is at ``place``, if it has one."""
        if self._long_name is not None:
            self._long_names[place] = self._long_name
        elif has_prefix:
            prefix = self._data[place + PREFIX : place + PREFIX_END].partition(b"\0")[0]
            name = self._data[place : place + NAME_SIZE].partition(b"\0")[0]
            self._long_names[place] = prefix + b"/" + name

    def _stretch(self) -> int:
        """Read the headers from here on that can be found together, and return their number."""
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

    The search ends before a header with an odd size or a wrong checksum, before one that gives the next member a name
    or a size, and before a member that does not end inside the file.

    Returns:
        The files; which of them have a ustar prefix, bool; the number of all headers; and the offset of the next one.
    """
    num_blocks = min(_STRETCH, (end - position) // BLOCK)
    magic = np.ndarray((num_blocks,), "<u4", data, position + MAGIC, (BLOCK,))
    places = np.flatnonzero(magic == _USTA) * BLOCK + position
    digits = gather_field(data, places, SIZE, 11) - np.uint8(ord("0"))
    sizes = digits @ OCTAL
    after = places + BLOCK + (sizes + BLOCK - 1 & -BLOCK)
    kinds = gather_field(data, places, TYPE, 1)[:, 0]
    good = (digits.max(axis=1, initial=0) < 8) & (after <= end) & (kinds != ord("L"))
    pax = np.flatnonzero(good & (kinds == ord("x")))
    if len(pax):
        good[pax] = ~may_name_or_size(data, places[pax] + BLOCK, sizes[pax])
    good[:1] &= places[:1] == position
    good[1:] &= after[:-1] == places[1:]
    count = int(np.argmin(np.append(good, False)))
    count = int(np.argmin(np.append(match_checksums(data, places[:count]), False)))
    if count:
        position = int(after[count - 1])
    is_file = _IS_FILE[kinds[:count]]
    places, sizes = places[:count][is_file], sizes[:count][is_file]
    prefixed = (gather_field(data, places, PREFIX, 1) != 0) & (gather_field(data, places, MAGIC_END, 1) == 0)
    files = _Files(places, sizes, _trim(gather_field(data, places, 0, NAME_SIZE)))
    return files, prefixed[:, 0], count, position


def _trim(fields: np.ndarray) -> np.ndarray:
    """Copy name fields without the zero columns at their end."""
    return fields[:, : int(np.flatnonzero(fields.any(axis=0)).max(initial=-1)) + 1].copy()
