"""Parse the names of a tar's members, all at once, into keys and extensions of images and texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from bimodal_cl.data.tar.headers import TarMembers
from bimodal_cl.files.image_files import HIDDEN, NO_ENDING
from bimodal_cl.files.image_formats import IMAGE_EXTENSIONS, TEXT_EXTENSION, TEXT_EXTENSIONS

# Extensions are numbered: images from 0 on, texts from TEXT on, all others from OTHER on.
TEXT = len(IMAGE_EXTENSIONS)
OTHER = TEXT + len(TEXT_EXTENSIONS)

_METADATA = ".json"  # next to the images of most public data sets
_NUMBERS = {ext.encode(): number for number, ext in enumerate((*IMAGE_EXTENSIONS, *TEXT_EXTENSIONS, _METADATA))}
# The extensions of nearly all members are compared with all names at once, in one byte more than the longest has.
_COMMON = (".jpg", ".jpeg", ".png", ".webp", TEXT_EXTENSION, _METADATA)
_COMMON_BYTES = 6
_ENDING_BYTES = 16  # of the other extensions; longer ones are processed one by one
_CHUNK = 8192  # names that are processed together
_CHUNK_BYTES = _CHUNK * 512  # of a chunk, in which each name takes the length of the longest


@dataclass(frozen=True)
class MemberNames:
    """The members that can be part of a sample: their names have an extension and are not hidden.

    Args:
        member: number of each in the tar, int64 ``[named]``.
        keys: names up to the last dot, without a leading ``./``.
        extension: number in ``endings``, int64 ``[named]``: below ``TEXT`` of an image, below ``OTHER`` of a text.
        begins: whether the key differs from that of the named member before, bool ``[named]``.
        dotted: whether the last part of the key holds a dot, bool ``[named]``.
        endings: ``IMAGE_EXTENSIONS``, ``TEXT_EXTENSIONS`` and all others that were found, lower case, with the dot.
        others: how many members are hidden, and how many have no extension.
    """

    member: np.ndarray
    keys: list[bytes]
    extension: np.ndarray
    begins: np.ndarray
    dotted: np.ndarray
    endings: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.keys)


def parse_names(members: TarMembers) -> MemberNames:
    """Find the keys and extensions of the members of a tar."""
    numbers, others = dict(_NUMBERS), Counter[str]()
    chunks = [
        _parse_chunk(members, first, last, numbers, others)
        for begin in range(0, len(members), _CHUNK)
        for first, last in _split(members, begin, min(begin + _CHUNK, len(members)))
    ]
    parts = [chunk for chunk in chunks if len(chunk)]
    for before, after in pairwise(parts):
        after.begins[0] = before.keys[-1] != after.keys[0]
    endings = [ending.decode("utf-8", "backslashreplace") for ending in numbers]
    if not parts:
        empty = np.empty(0, np.int64)
        return MemberNames(empty, [], empty, empty.astype(bool), empty.astype(bool), endings, others)
    columns = {
        column: np.concatenate([getattr(part, column) for part in parts])
        for column in ("member", "extension", "begins", "dotted")
    }
    keys = [key for part in parts for key in part.keys]
    return MemberNames(keys=keys, endings=endings, others=others, **columns)


def _split(members: TarMembers, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Halve a chunk until its names fit into ``_CHUNK_BYTES``, so that one very long name takes little memory."""
    longest = max(map(len, _long_names(members, first, last).values()), default=0)
    if last - first == 1 or longest * (last - first) <= _CHUNK_BYTES:
        yield first, last
        return
    middle = (first + last) // 2
    yield from _split(members, first, middle)
    yield from _split(members, middle, last)


def _long_names(members: TarMembers, first: int, last: int) -> dict[int, bytes]:
    """Return the long names among some members, by number among these."""
    names = members.long_names
    return {number - first: names[number] for number in range(first, last) if number in names} if names else {}


def _parse_chunk(
    members: TarMembers, first: int, last: int, numbers: dict[bytes, int], others: Counter[str]
) -> MemberNames:
    """Parse some names; new extensions are added to ``numbers``, members without a usable name to ``others``."""
    text = _spread_names(members, first, last)
    places = np.arange(len(text), dtype=np.int32)[:, None]
    is_dot, is_slash = text == ord("."), text == ord("/")
    dot = np.where(is_dot, places, -1).max(axis=0)
    slash = np.where(is_slash, places, -1).max(axis=0)
    hidden = is_dot[slash + 1, np.arange(len(slash))]
    named = np.flatnonzero((dot > slash) & ~hidden)
    if len(named) < len(dot):
        others[HIDDEN] += int(hidden.sum())
        others[NO_ENDING] += int((~hidden & (dot <= slash)).sum())
        text, dot, slash, is_dot = text[:, named], dot[named], slash[named], is_dot[:, named]
    extension = _number_endings(text, dot, numbers)
    in_key = places < dot
    begins = np.ones(len(named), dtype=bool)
    begins[1:] = (dot[1:] != dot[:-1]) | ((text[:, 1:] != text[:, :-1]) & in_key[:, 1:]).any(axis=0)
    dotted = (is_dot & in_key & (places > slash)).any(axis=0)
    keys = np.ascontiguousarray((text * in_key).T).view(f"S{len(text)}")[:, 0].tolist()
    return MemberNames(named + first, keys, extension, begins, dotted)


def _number_endings(text: np.ndarray, dot: np.ndarray, numbers: dict[bytes, int]) -> np.ndarray:
    """Return the number of each name's extension, int64 ``[names]``; new extensions are added to ``numbers``."""
    packed = _take_endings(text, dot, np.arange(len(dot)), _COMMON_BYTES)
    extension = np.full(len(dot), -1, dtype=np.int64)
    for ending in _COMMON:
        extension[packed == ending.encode()] = numbers[ending.encode()]
    rest = np.flatnonzero(extension < 0)
    if not len(rest):
        return extension
    found, which = np.unique(_take_endings(text, dot, rest, _ENDING_BYTES), return_inverse=True)
    of_found = np.asarray(
        [_number(ending, numbers) if len(ending) < _ENDING_BYTES else -1 for ending in found.tolist()]
    )
    extension[rest] = of_found[which]
    for name in np.flatnonzero(extension < 0).tolist():
        extension[name] = _number(text[dot[name] :, name].tobytes().rstrip(b"\0").lower(), numbers)
    return extension


def _number(ending: bytes, numbers: dict[bytes, int]) -> int:
    return numbers.setdefault(ending, len(numbers))


def _take_endings(text: np.ndarray, dot: np.ndarray, names: np.ndarray, width: int) -> np.ndarray:
    """Return the extensions of some names in lower case, cut to ``width`` bytes: ``S`` ``[names]``."""
    places = np.minimum(dot[names, None] + np.arange(width), len(text) - 1)  # the last row is zeros
    endings = text[places, names[:, None]]
    endings += np.where((endings >= ord("A")) & (endings <= ord("Z")), np.uint8(32), np.uint8(0))
    return endings.view(f"S{width}")[:, 0]


def _spread_names(members: TarMembers, first: int, last: int) -> np.ndarray:
    """Return names without ``./``, one per column, padded with zeros: uint8 ``[longest + _COMMON_BYTES, names]``.

    The characters at one place of all names form a row, so that operations on all names run over long rows.
    """
    fields = members.fields[first:last]
    long_names = _long_names(members, first, last)
    height = max([fields.shape[1], *map(len, long_names.values())]) + _COMMON_BYTES
    text = np.zeros((height, len(fields)), np.uint8)
    shown = fields.shape[1]
    text[:shown] = fields.T
    for row in range(1, shown):
        text[row] *= text[row - 1] != 0  # clear what follows the end of a name
    for number, name in long_names.items():
        text[:, number] = 0
        text[: len(name), number] = np.frombuffer(name, np.uint8)
    here = np.flatnonzero((text[0] == ord(".")) & (text[1] == ord("/")))
    text[:-2, here] = text[2:, here]
    return text
