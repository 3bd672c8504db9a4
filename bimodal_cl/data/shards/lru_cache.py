"""An LRU cache with weights, an eviction callback, and iteration that does not count as use.

``cachetools.LRUCache`` refuses a value heavier than the limit, has no eviction callback, and counts iteration as use.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LRUCache(Generic[Value]):
    """Values by number, up to a total weight; the least recently used ones are evicted, but never the newest.

    Args:
        limit: of the total weight; a single value may be heavier.
        weigh: returns the weight of a value; None: 1 each.
        close: called with each value that is evicted or dropped; None: nothing is called.
    """

    def __init__(
        self,
        limit: int,
        weigh: Callable[[Value], int] | None = None,
        close: Callable[[Value], object] | None = None,
    ) -> None:
        self._limit, self._weigh, self._close = limit, weigh, close
        self._values: OrderedDict[int, Value] = OrderedDict()
        self._weight = 0

    def __contains__(self, key: int) -> bool:
        return key in self._values

    def items(self) -> list[tuple[int, Value]]:
        """Return keys and values, least recently used first, without marking them as used."""
        return list(self._values.items())

    def get(self, key: int, make: Callable[[int], Value]) -> Value:
        """Return the value of a key; if it is missing, store ``make(key)`` first."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = make(key)
        self._weight += self._weigh(value) if self._weigh else 1
        while self._weight > self._limit and len(self._values) > 1:
            self.drop(next(iter(self._values)))
        return value

    def drop(self, key: int) -> None:
        """Remove the value of a key.

        Raises:
            KeyError: there is none.
        """
        value = self._values.pop(key)
        self._weight -= self._weigh(value) if self._weigh else 1
        if self._close:
            self._close(value)

    def clear(self) -> None:
        """Remove all values."""
        while self._values:
            self.drop(next(iter(self._values)))
