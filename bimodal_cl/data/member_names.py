"""The names of a tar's members, all at once: which belong to one sample, and which is its image and its text."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bimodal_cl.data.tar_headers import TarMembers

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
TEXT_EXTENSION = ".txt"
TEXT, OTHER = len(IMAGE_EXTENSIONS), len(IMAGE_EXTENSIONS) + 1  # after the images' numbers

_EXTENSION_BYTES = 6  # one more than the longest with its dot
_CODES = {ext.encode().ljust(_EXTENSION_BYTES, b"\0"): n for n, ext in enumerate((*IMAGE_EXTENSIONS, TEXT_EXTENSION))}
_CHUNK = 4096  # names that are compared together


@dataclass(frozen=True)
class MemberNames:
    """The members that a sample can have: their names have an extension and are not hidden.

    Args:
        member: number of each in the tar, int64 ``[named]``.
        names: as bytes, without ``./`` at the front.
        dot: where the extension begins, int64 ``[named]``; the key is what stands before.
        extension: number in ``IMAGE_EXTENSIONS``, or ``TEXT``, or ``OTHER``, int64 ``[named]``.
        begins: whether the key is another one than that of the named member before, bool ``[named]``.
        dotted: whether the key's last part holds a dot, bool ``[named]``.
    """

    member: np.ndarray
    names: list[bytes]
    dot: np.ndarray
    extension: np.ndarray
    begins: np.ndarray
    dotted: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def key(self, named: int) -> bytes:
        """The name up to the last dot."""
        return self.names[named][: self.dot[named]]

    def keys(self, named: np.ndarray) -> list[bytes]:
        """The keys of some members, by their places among the named ones."""
        return [self.names[n][:dot] for n, dot in zip(named.tolist(), self.dot[named].tolist(), strict=True)]


def parse_names(members: TarMembers) -> MemberNames:
    """Find keys and extensions of the members of a tar."""
    parts = []
    for first in range(0, len(members), _CHUNK):
        part = _parse_chunk(members, first, min(first + _CHUNK, len(members)))
        if len(part):
            parts.append(part)
    for before, after in pairwise(parts):
        after.begins[0] = before.key(len(before) - 1) != after.key(0)
    if not parts:
        empty = np.empty(0, np.int64)
        return MemberNames(empty, [], empty, empty, empty.astype(bool), empty.astype(bool))
    columns = {
        column: np.concatenate([getattr(part, column) for part in parts])
        for column in ("member", "dot", "extension", "begins", "dotted")
    }
    return MemberNames(names=[name for part in parts for name in part.names], **columns)


def _parse_chunk(members: TarMembers, first: int, last: int) -> MemberNames:
    text, sizes = _spread_names(members, first, last)
    columns = np.arange(text.shape[1])
    is_dot, is_slash = text == ord("."), text == ord("/")
    dot, slash = _last_true(is_dot), _last_true(is_slash)
    hidden = is_dot[np.arange(len(text)), slash + 1]
    named = np.flatnonzero((dot > slash) & ~hidden)
    text, dot, slash, is_dot = text[named], dot[named], slash[named], is_dot[named]
    endings = text[np.arange(len(named))[:, None], dot[:, None] + np.arange(_EXTENSION_BYTES)]
    endings += np.where((endings >= ord("A")) & (endings <= ord("Z")), np.uint8(32), np.uint8(0))
    extension = np.full(len(named), OTHER, dtype=np.int64)
    packed = endings.view(f"S{_EXTENSION_BYTES}")[:, 0]
    for ending, code in _CODES.items():
        extension[packed == ending] = code
    in_key = columns < dot[:, None]
    begins = np.ones(len(named), dtype=bool)
    begins[1:] = (dot[1:] != dot[:-1]) | ((text[1:] != text[:-1]) & in_key[1:]).any(axis=1)
    dotted = (is_dot & in_key & (columns > slash[:, None])).any(axis=1)
    flat, width = text.tobytes(), text.shape[1]
    ends = np.arange(len(named)) * width + sizes[named]
    names = [flat[n * width : end] for n, end in enumerate(ends.tolist())]
    return MemberNames(named + first, names, dot, extension, begins, dotted)


def _spread_names(members: TarMembers, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Return names without ``./``, uint8 ``[names, width]``, zeros after each, and their sizes, int64 ``[names]``."""
    fields = members.fields[first:last]
    is_end = fields == 0
    sizes = np.where(is_end.any(axis=1), is_end.argmax(axis=1), fields.shape[1])
    long_names = {n - first: name for n, name in members.long_names.items() if first <= n < last}
    for number, name in long_names.items():
        sizes[number] = len(name)
    width = int(sizes.max(initial=0))
    text = np.zeros((len(fields), width + _EXTENSION_BYTES), np.uint8)
    text[:, : min(width, fields.shape[1])] = fields[:, :width]
    for number, name in long_names.items():
        text[number, : len(name)] = np.frombuffer(name, np.uint8)
    here = np.flatnonzero((text[:, 0] == ord(".")) & (text[:, 1] == ord("/")) & (sizes > 1))
    text[here, :-2] = text[here, 2:]
    sizes[here] -= 2
    text[np.arange(text.shape[1]) >= sizes[:, None]] = 0  # what stands after a name's end
    return text, sizes


def _last_true(marks: np.ndarray) -> np.ndarray:
    """Column of the last true one in each row, -1 where there is none, int64 ``[rows]``."""
    last = marks.shape[1] - 1 - marks[:, ::-1].argmax(axis=1)
    return np.where(marks.any(axis=1), last, -1)
