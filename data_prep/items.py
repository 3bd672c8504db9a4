"""What a source gives and a writer takes: items, items that could not be read, and the splits they belong to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Item:
    """One image with its captions, as a source knows it.

    Args:
        name: what the key is made from; stable between runs (a relative path without its extension, say).
        image: the image file, its bytes, or what makes them: called (with nothing) in the process that encodes the
            item, so it must pickle and depend on nothing else.
        captions: the captions; cleaned by the writer.
        metadata: the JSON text that goes beside them, or None.
        where: where it stands (file, line, key), for messages; "" where the image's path or the name says it.
    """

    name: str
    image: Path | bytes | Callable[[], bytes]
    captions: tuple[str, ...]
    metadata: bytes | None = None
    where: str = ""


@dataclass(frozen=True)
class BadItem:
    """An item that the source itself cannot make: where it stands (file, line, key) and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class Split:
    """A part of a source that gets its own shards and manifest.

    Args:
        name: the sub-folder it is written to; "" for the target folder itself.
        items: gives the items, in the order of their image ids.
        total: how many items that will be, for the progress bar; None where nobody knows.
        lacking: by reason, how many images the source lists without holding them; filled in while items are taken.
        left_out: by ending, how many files of the source are not read.
        joined: by reason, how many rows went into the item of another one; filled in while items are taken.
    """

    name: str
    items: Iterable[Item | BadItem]
    total: int | None
    lacking: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    joined: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class SourcePlan:
    """All that one run of a source writes.

    Args:
        splits: the shard folders.
        write_extras: writes further files under the folder it is given, which stands for the target folder; they
            appear there together with the shards.
    """

    splits: list[Split]
    write_extras: Callable[[Path], None] | None = None
