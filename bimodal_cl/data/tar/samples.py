"""Group the members of a tar into samples: runs of adjacent members of one key.

An extension that repeats starts a new sample. This is the only grouping, both as arrays to index a shard
(:func:`group_members`) and sample by sample to read it (:func:`open_samples`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from bimodal_cl.data.tar.headers import Damage, TarMembers, walk_tar
from bimodal_cl.data.tar.mapping import map_tar
from bimodal_cl.data.tar.member_names import OTHER, TEXT, MemberNames, parse_names
from bimodal_cl.files.image_formats import IMAGE_EXTENSIONS, TEXT_EXTENSIONS


@dataclass(frozen=True)
class Groups:
    """The samples of a tar as columns, in which a member is its place among the named members.

    Args:
        named: the members that can be part of a sample.
        images: the first image of each sample, -1 if it has none, int64 ``[samples]``.
        texts: the text of each sample that is read (the first of ``TEXT_EXTENSIONS``), -1 if it has none.
        first: the first member of each sample, int64 ``[samples]``.
        cut: the first member of a last sample that lost its image or its text to damage, and is left out; the number of
            named members if there is no such sample.
    """

    named: MemberNames
    images: np.ndarray
    texts: np.ndarray
    first: np.ndarray
    cut: int

    def count_left_out(self) -> Counter[str]:
        """Count, by extension, the members that belong to no sample with an image."""
        counts = Counter(self.named.others)
        without = np.repeat(self.images < 0, self._lengths)
        numbers = np.bincount(self.named.extension[: self.cut][without], minlength=1)
        counts.update({self.named.endings[n]: int(numbers[n]) for n in np.flatnonzero(numbers).tolist()})
        return counts

    def count_second(self) -> tuple[int, int]:
        """Count the additional images and the additional texts of samples, which are not read."""
        extension = self.named.extension[: self.cut][np.repeat(self.images >= 0, self._lengths)]
        num_images, num_texts = np.count_nonzero(extension < TEXT), np.count_nonzero(extension < OTHER)
        used_images = np.count_nonzero(self.images >= 0)
        used_texts = np.count_nonzero((self.images >= 0) & (self.texts >= 0))
        return int(num_images - used_images), int(num_texts - num_images - used_texts)

    @property
    def _lengths(self) -> np.ndarray:
        """Number of members of each sample, int64 ``[samples]``."""
        return np.diff(np.append(self.first, self.cut))


@dataclass(frozen=True)
class TarSample:
    """One sample of a tar: a run of adjacent members with one key.

    Args:
        key: their name up to its last dot.
        members: offset and size in bytes by extension (lower case, with its dot), in order.
    """

    key: str
    members: dict[str, tuple[int, int]]

    @property
    def image(self) -> str | None:
        """Extension of the first image member."""
        return next((extension for extension in self.members if extension in IMAGE_EXTENSIONS), None)

    @property
    def text(self) -> str | None:
        """Extension of the text that is read: the first of ``TEXT_EXTENSIONS`` in the sample."""
        return next((extension for extension in TEXT_EXTENSIONS if extension in self.members), None)


class TarSamples:
    """The samples of an open tar, up to its end or its first damage.

    Args:
        descriptor: the open file.
        members: its members.

    Attributes:
        samples: in order, grouped as in the index of a shard, including those without an image.
        left_out: counts, by extension, of the members that belong to no sample with an image.
        damage: what ends the tar early; None for a whole tar.
        cut: the last sample if damage may have removed its image or its text. It is not in ``samples``.
    """

    def __init__(self, descriptor: int, members: TarMembers) -> None:
        self._descriptor = descriptor
        groups = group_members(members)
        starts = [*groups.first.tolist(), groups.cut]
        self.samples = list(_list_samples(members, groups.named, starts))
        self.left_out = groups.count_left_out()
        self.damage: Damage | None = members.damage
        end = len(groups.named)
        cut = _list_samples(members, groups.named, [groups.cut, end]) if groups.cut < end else iter(())
        self.cut: TarSample | None = next(cut, None)

    def read(self, sample: TarSample, extension: str) -> bytes:
        """Read one member of a sample.

        Raises:
            OSError: the disk failed, or the file was truncated since it was opened.
        """
        offset, size = sample.members[extension]
        data = os.pread(self._descriptor, size, offset)
        if len(data) < size:
            raise OSError(f"only {len(data)} of {size} bytes at byte {offset}")
        return data


@contextmanager
def open_samples(path: Path, name: str | Path | None = None) -> Iterator[TarSamples]:
    """Open a tar and find its samples from the headers.

    Args:
        path: the file.
        name: of the shard, for messages; None for its path.

    Raises:
        UserError: the file cannot be opened, or is compressed.
    """
    with map_tar(path, name or path) as data:
        members = walk_tar(data)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield TarSamples(descriptor, members)
    finally:
        os.close(descriptor)


def count_members(path: Path) -> Counter[str]:
    """Count all members of a tar by extension, whether or not they belong to a sample.

    Raises:
        UserError: the file cannot be opened, or is compressed.
    """
    with map_tar(path, path) as data:
        named = parse_names(walk_tar(data))
    numbers = np.bincount(named.extension, minlength=1)
    return named.others + Counter({named.endings[n]: int(numbers[n]) for n in np.flatnonzero(numbers).tolist()})


def group_members(members: TarMembers) -> Groups:
    """Group the members of a tar. The last sample of a damaged tar is left out unless it has an image and a text."""
    named = parse_names(members)
    _split_runs(named)
    first = np.flatnonzero(named.begins)
    run = np.cumsum(named.begins) - 1
    images, texts = np.full(len(first), -1), np.full(len(first), -1)
    of_image = np.flatnonzero(named.extension < TEXT)[::-1]  # in reverse: the first image of a run is written last
    images[run[of_image]] = of_image
    for number in range(OTHER - 1, TEXT - 1, -1):
        of_text = np.flatnonzero(named.extension == number)
        texts[run[of_text]] = of_text
    cut = len(named)
    if members.damage is not None and len(first) and (images[-1] < 0 or texts[-1] < 0):
        cut = int(first[-1])
        images, texts, first = images[:-1], texts[:-1], first[:-1]
    return Groups(named, images, texts, first, cut)


def decode_key(key: bytes) -> str:
    """Decode a key; bytes that are not UTF-8 are shown as ``\\xNN``."""
    return key.decode("utf-8", "backslashreplace")


def _split_runs(named: MemberNames) -> None:
    """Start a new run at each extension that repeats in a run of one key."""
    run = np.cumsum(named.begins) - 1
    places = run * len(named.endings) + named.extension
    order = np.argsort(places, kind="stable")
    again = places[order][1:] == places[order][:-1]
    if not again.any():
        return
    seen: set[int] = set()
    for number in np.flatnonzero(np.isin(run, run[order[1:][again]])).tolist():
        extension = int(named.extension[number])
        if named.begins[number] or extension in seen:
            named.begins[number] = True
            seen = set()
        seen.add(extension)


def _list_samples(members: TarMembers, named: MemberNames, starts: list[int]) -> Iterator[TarSample]:
    places = np.stack([members.offset[named.member], members.size[named.member]], axis=1).tolist()
    endings = [named.endings[number] for number in named.extension.tolist()]
    for begin, end in pairwise(starts):
        found = {endings[number]: (places[number][0], places[number][1]) for number in range(begin, end)}
        yield TarSample(decode_key(named.keys[begin]), found)
