"""The samples of a tar, whole or damaged: which members belong together, and their bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bimodal_cl.data.member_names import IMAGE_EXTENSIONS, TEXT_EXTENSION
from bimodal_cl.data.tar_headers import Damage, TarMembers, mapped, walk_tar


@dataclass(frozen=True)
class Sample:
    """A run of adjacent members with one key.

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
    def has_text(self) -> bool:
        """Whether a caption stands beside the image."""
        return TEXT_EXTENSION in self.members


class TarSamples:
    """The samples of an open tar, up to its end or its first damage.

    Args:
        descriptor: the open file.
        members: its members.

    Attributes:
        samples: in order, as the index of a shard groups them, texts without an image too.
        damage: what ends the tar early; None where nothing does.
        cut: the sample that the damage may have taken a part of: it has no image or no text. It is not in ``samples``.
    """

    def __init__(self, descriptor: int, members: TarMembers) -> None:
        self._descriptor = descriptor
        self.damage: Damage | None = members.damage
        self.samples = list(_group(members))
        self.cut: Sample | None = None
        if self.damage is not None and self.samples:
            last = self.samples[-1]
            if last.image is None or not last.has_text:
                self.cut = self.samples.pop()

    def read(self, sample: Sample, extension: str) -> bytes:
        """Read one member of a sample.

        Raises:
            OSError: the disk failed, or the file became shorter.
        """
        offset, size = sample.members[extension]
        data = os.pread(self._descriptor, size, offset)
        if len(data) < size:
            raise OSError(f"only {len(data)} of {size} bytes at byte {offset}")
        return data


@contextmanager
def open_samples(path: Path, called: str | Path | None = None) -> Iterator[TarSamples]:
    """Open a tar and find its samples from the headers.

    Args:
        path: the file.
        called: what messages call it; None for its path.

    Raises:
        UserError: it cannot be opened.
    """
    with mapped(path, called or path) as data:
        members = walk_tar(data)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield TarSamples(descriptor, members)
    finally:
        os.close(descriptor)


def _group(members: TarMembers) -> Iterator[Sample]:
    """A run ends where the key changes, and where a text or an image of the same extension comes a second time."""
    sample = Sample("", {})
    offsets, sizes = members.offset.tolist(), members.size.tolist()
    for number in range(len(members)):
        name = members.name(number).decode("utf-8", "backslashreplace").removeprefix("./")
        stem, dot, extension = name.rpartition(".")
        if not dot or "/" in extension or name.rpartition("/")[2].startswith("."):
            continue
        extension = f".{extension.lower()}"
        repeated = extension in sample.members
        if stem != sample.key or (repeated and extension in (TEXT_EXTENSION, sample.image)):
            if sample.members:
                yield sample
            sample = Sample(stem, {})
        if extension not in sample.members:
            sample.members[extension] = offsets[number], sizes[number]
    if sample.members:
        yield sample
