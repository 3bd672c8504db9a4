"""Define what a source hands to the writer: items, unusable items, and the splits they belong to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Item:
    """One image with its captions.

    Args:
        name: the key is made from it, so it must not change between runs; usually a relative path without extension.
        image: the image file, its bytes, or a function of no arguments that returns its bytes. The function is called
            in the process that encodes the item, so it must pickle.
        captions: the captions as they are; the writer cleans them.
        metadata: JSON text stored as the sample's ``.json``, or None.
        where: the item's place (file, line, key) in messages; "" to use the image's path or the name.
    """

    name: str
    image: Path | bytes | Callable[[], bytes]
    captions: tuple[str, ...]
    metadata: bytes | None = None
    where: str = ""


@dataclass(frozen=True)
class BadItem:
    """An item that the source cannot read: its place (file, line, key) and the reason. It is reported and counted."""

    where: str
    reason: str


@dataclass(frozen=True)
class Split:
    """A part of a source with its own folder of shards and manifest.

    Args:
        name: the sub-folder to write to; "" for the target folder itself.
        items: the items in the order of their image ids.
        total: the number of items, for the progress bar; None if unknown.
        lacking: images that the source lists but does not contain, counted by reason while the items are read.
        left_out: files of the source that are not read, counted by ending.
        joined: rows merged into an earlier item, counted by reason while the items are read.
    """

    name: str
    items: Iterable[Item | BadItem]
    total: int | None = None
    lacking: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    joined: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class SourcePlan:
    """Everything that one run of a source writes.

    Args:
        splits: the shard folders.
        write_extras: called with a staging folder after the shards are written; the files that it writes there
            appear in the target folder together with the shards.
    """

    splits: list[Split]
    write_extras: Callable[[Path], None] | None = None
