"""One image in several rows, a row a caption, is one image with several captions.

As separate images its copies would be each other's negatives, and in retrieval a caption would have one right image
among several equal ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from ..items import BadItem, Item

JOINED = "rows of an image that another row has already, a caption each: joined"


def join_neighbours(items: Iterable[Item | BadItem], counts: Counter[str]) -> Iterator[Item | BadItem]:
    """Join items that follow one another with the same image: the same file, bytes, or member of an archive.

    Args:
        items: in order, as a stream gives them; one is held at a time.
        counts: ``JOINED`` is counted up by the items that went into the one before.

    Yields:
        Items with the captions of all that were joined, and the bad ones, in the order of their first appearance.
    """
    held: Item | None = None
    for item in items:
        if held is not None and isinstance(item, Item) and _same(held.image, item.image):
            held = replace(held, captions=held.captions + item.captions)
            counts[JOINED] += 1
            continue
        if held is not None:
            yield held
        held = item if isinstance(item, Item) else None
        if isinstance(item, BadItem):
            yield item
    if held is not None:
        yield held


def join_rows(items: Iterable[Item | BadItem], counts: Counter[str]) -> Iterator[Item | BadItem]:
    """Join all items of one file where images are files, which can be compared over all rows; else neighbours.

    Arguments and order as :func:`join_neighbours`; the first image tells.
    """
    rows = iter(items)
    begin: list[Item | BadItem] = []
    for item in rows:
        begin.append(item)
        if isinstance(item, Item):
            break
    first = begin[-1] if begin else None
    join = join_files if isinstance(first, Item) and isinstance(first.image, Path) else join_neighbours
    yield from join(chain(begin, rows), counts)


def join_files(items: Iterable[Item | BadItem], counts: Counter[str]) -> Iterator[Item | BadItem]:
    """Join all items of one file, wherever they stand. Arguments and order as :func:`join_neighbours`."""
    return join_by(lambda item: item.image if isinstance(item.image, Path) else None, items, counts)


def join_by(
    identity: Callable[[Item], Hashable | None], items: Iterable[Item | BadItem], counts: Counter[str]
) -> Iterator[Item | BadItem]:
    """Join all items of one identity, wherever they stand; all items are held until the end, so images must not be.

    Args:
        identity: of an item's image; None: it is like no other.
        items, counts: as in :func:`join_neighbours`.
    """
    first: dict[Hashable, int] = {}
    joined: list[Item | BadItem] = []
    captions: dict[int, list[str]] = {}
    for item in items:
        known = identity(item) if isinstance(item, Item) else None
        if isinstance(item, Item) and known is not None:
            place = first.setdefault(known, len(joined))
            captions.setdefault(place, []).extend(item.captions)
            if place < len(joined):
                counts[JOINED] += 1
                continue
        joined.append(item)
    for place, item in enumerate(joined):
        yield replace(item, captions=tuple(captions[place])) if isinstance(item, Item) and place in captions else item


def _same(first: object, second: object) -> bool:
    if isinstance(first, partial) and isinstance(second, partial):
        return (first.func, first.args) == (second.func, second.args)
    return first == second
