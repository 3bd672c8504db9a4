"""Values by number, kept as long as they are among those used last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """The values used last, of a total weight of at most ``limit`` (or one value alone).

    Args:
        limit: weight of all together.
        weigh: gives a value's weight; None: 1 each.
        close: is called with a value that goes; None: nothing is.
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
        """Keys and values, those used least recently first; this is no use of them."""
        return list(self._values.items())

    def get(self, key: int, make: Callable[[int], Value]) -> Value:
        """Return the value of a key, made now if it is not there."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = make(key)
        self._weight += self._weigh(value) if self._weigh else 1
        while self._weight > self._limit and len(self._values) > 1:
            self.drop(next(iter(self._values)))
        return value

    def drop(self, key: int) -> None:
        """Let the value of a key go."""
        value = self._values.pop(key)
        self._weight -= self._weigh(value) if self._weigh else 1
        if self._close:
            self._close(value)

    def clear(self) -> None:
        """Let all go."""
        while self._values:
            self.drop(next(iter(self._values)))
