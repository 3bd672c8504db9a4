"""Join rows of the same image, with one caption each, into one item with several captions.

As separate items, the copies of an image would be negatives of one another in training, and in retrieval only one of
several equal images would count as correct.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from ..items import BadItem, Item, Split

Join: TypeAlias = Callable[[Iterable[Item | BadItem], Counter[str]], Iterator[Item | BadItem]]
JOINED = "rows joined with an earlier row of the same image"


def join_neighbours(items: Iterable[Item | BadItem], counts: Counter[str]) -> Iterator[Item | BadItem]:
    """Join consecutive items with the same image: the same file, bytes, or member of an archive.

    Args:
        items: the items in order; one is held in memory at a time.
        counts: ``JOINED`` is increased by the number of items that were joined with an earlier one.

    Yields:
        Joined items with the captions of all, and bad items, in order of first appearance.
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
    """Join items as :func:`join_files` does if the first image is a file, else as :func:`join_neighbours` does.

    Files can be compared over all rows; images as bytes cannot, since they would all have to stay in memory.
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
    """Join all items of the same file, adjacent or not. Arguments and order are those of :func:`join_neighbours`."""
    return join_by(lambda item: item.image if isinstance(item.image, Path) else None, items, counts)


def make_split(name: str, items: Iterable[Item | BadItem], total: int | None, join: Join = join_files) -> Split:
    """Return a split of joined items, which counts the joined rows.

    Args:
        name: folder of the split.
        items: the items before they are joined.
        total: their number; None if unknown.
        join: one of the functions above.
    """
    joined: Counter[str] = Counter()
    return Split(name, join(items, joined), total, joined=joined)


def join_by(
    identity: Callable[[Item], Hashable | None], items: Iterable[Item | BadItem], counts: Counter[str]
) -> Iterator[Item | BadItem]:
    """Join all items with equal identities, adjacent or not.

    All items are held until the end, so their images must be files or functions, not bytes.

    Args:
        identity: returns what identifies an item's image; None if it equals no other image.
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
