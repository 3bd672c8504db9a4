"""The names of a tar's members, all at once: which belong to one sample, and which is its image and its text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bimodal_cl.data.tar_headers import TarMembers

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
TEXT_EXTENSION = ".txt"
TEXT, OTHER = len(IMAGE_EXTENSIONS), len(IMAGE_EXTENSIONS) + 1  # after the images' numbers

_EXTENSION_BYTES = 6  # one more than the longest with its dot
_CODES = {ext.encode().ljust(_EXTENSION_BYTES, b"\0"): n for n, ext in enumerate((*IMAGE_EXTENSIONS, TEXT_EXTENSION))}
_CHUNK = 8192  # names that are compared together
_CHUNK_BYTES = _CHUNK * 512  # of them, the longest giving the room that each takes


@dataclass(frozen=True)
class MemberNames:
    """The members that a sample can have: their names have an extension and are not hidden.

    Args:
        member: number of each in the tar, int64 ``[named]``.
        keys: names up to the last dot, without ``./`` at the front.
        extension: number in ``IMAGE_EXTENSIONS``, or ``TEXT``, or ``OTHER``, int64 ``[named]``.
        begins: whether the key is another one than that of the named member before, bool ``[named]``.
        dotted: whether the key's last part holds a dot, bool ``[named]``.
    """

    member: np.ndarray
    keys: list[bytes]
    extension: np.ndarray
    begins: np.ndarray
    dotted: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)


def parse_names(members: TarMembers) -> MemberNames:
    """Find keys and extensions of the members of a tar."""
    chunks = [
        _parse_chunk(members, first, last)
        for begin in range(0, len(members), _CHUNK)
        for first, last in _split(members, begin, min(begin + _CHUNK, len(members)))
    ]
    parts = [chunk for chunk in chunks if len(chunk)]
    for before, after in pairwise(parts):
        after.begins[0] = before.keys[-1] != after.keys[0]
    if not parts:
        empty = np.empty(0, np.int64)
        return MemberNames(empty, [], empty, empty.astype(bool), empty.astype(bool))
    columns = {
        column: np.concatenate([getattr(part, column) for part in parts])
        for column in ("member", "extension", "begins", "dotted")
    }
    return MemberNames(keys=[key for part in parts for key in part.keys], **columns)


def _split(members: TarMembers, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Halve a chunk until its names fit into ``_CHUNK_BYTES``: one endless name among thousands takes little room."""
    longest = max(map(len, _long_names(members, first, last).values()), default=0)
    if last - first == 1 or longest * (last - first) <= _CHUNK_BYTES:
        yield first, last
        return
    middle = (first + last) // 2
    yield from _split(members, first, middle)
    yield from _split(members, middle, last)


def _long_names(members: TarMembers, first: int, last: int) -> dict[int, bytes]:
    """The long names among some members, by number in these."""
    names = members.long_names
    return {number - first: names[number] for number in range(first, last) if number in names} if names else {}


def _parse_chunk(members: TarMembers, first: int, last: int) -> MemberNames:
    text = _spread_names(members, first, last)
    places = np.arange(len(text), dtype=np.int32)[:, None]
    is_dot, is_slash = text == ord("."), text == ord("/")
    dot = np.where(is_dot, places, -1).max(axis=0)
    slash = np.where(is_slash, places, -1).max(axis=0)
    hidden = is_dot[slash + 1, np.arange(len(slash))]
    named = np.flatnonzero((dot > slash) & ~hidden)
    if len(named) < len(dot):
        text, dot, slash, is_dot = text[:, named], dot[named], slash[named], is_dot[:, named]
    endings = text[dot[:, None] + np.arange(_EXTENSION_BYTES), np.arange(len(named))[:, None]]
    endings += np.where((endings >= ord("A")) & (endings <= ord("Z")), np.uint8(32), np.uint8(0))
    packed = endings.view(f"S{_EXTENSION_BYTES}")[:, 0]
    extension = np.full(len(named), OTHER, dtype=np.int64)
    for ending, code in _CODES.items():
        extension[packed == ending] = code
    in_key = places < dot
    begins = np.ones(len(named), dtype=bool)
    begins[1:] = (dot[1:] != dot[:-1]) | ((text[:, 1:] != text[:, :-1]) & in_key[:, 1:]).any(axis=0)
    dotted = (is_dot & in_key & (places > slash)).any(axis=0)
    keys = np.ascontiguousarray((text * in_key).T).view(f"S{len(text)}")[:, 0].tolist()
    return MemberNames(named + first, keys, extension, begins, dotted)


def _spread_names(members: TarMembers, first: int, last: int) -> np.ndarray:
    """Return names without ``./``, a column each, and zeros below: uint8 ``[longest + _EXTENSION_BYTES, names]``.

    Letters of a kind stand in a row so that what is done to all names is done to long rows.
    """
    fields = members.fields[first:last]
    long_names = _long_names(members, first, last)
    height = max([fields.shape[1], *map(len, long_names.values())]) + _EXTENSION_BYTES
    text = np.zeros((height, len(fields)), np.uint8)
    shown = fields.shape[1]
    text[:shown] = fields.T
    for row in range(1, shown):
        text[row] *= text[row - 1] != 0  # nothing stands after a name's end
    for number, name in long_names.items():
        text[:, number] = 0
        text[: len(name), number] = np.frombuffer(name, np.uint8)
    here = np.flatnonzero((text[0] == ord(".")) & (text[1] == ord("/")))
    text[:-2, here] = text[2:, here]
    return text
