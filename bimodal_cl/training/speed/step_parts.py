"""Name the parts of a step, and add up the time of each while a profile is taken.

Outside a profile a part costs a function call. In a profile its name is also a range of the trace, and the device is
waited for where a part ends: work that was only queued would else count for the part that waits for it first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch.profiler import record_function

WAIT, TRANSFER, FORWARD, LOSS, BACKWARD, OPTIMIZER, REST = (
    "wait for data",
    "transfer",
    "towers forward",
    "loss",
    "backward",
    "optimizer",
    "log and rest",
)
PARTS = (WAIT, TRANSFER, FORWARD, LOSS, BACKWARD, OPTIMIZER, REST)

_running: list[StepClock] = []  # at most one


class StepClock:
    """Adds up the seconds of every part; a part within another one counts for itself only.

    Args:
        synchronize: waits for the device.

    Attributes:
        seconds: by the names of ``PARTS``; what no part covers is in the last.
    """

    def __init__(self, synchronize: Callable[[], object]) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._synchronize = synchronize
        self._names = [REST]
        self._since = time.perf_counter()

    def _charge(self) -> None:
        self._synchronize()
        now = time.perf_counter()
        self.seconds[self._names[-1]] += now - self._since
        self._since = now

    @contextmanager
    def running(self) -> Iterator[None]:
        """Take the time of the parts that run meanwhile in this process."""
        _running.append(self)
        self._synchronize()
        self._since = time.perf_counter()
        try:
            yield
        finally:
            self._charge()
            _running.remove(self)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time for this part."""
        self._charge()
        self._names.append(name)
        try:
            with record_function(name):
                yield
        finally:
            self._charge()
            self._names.pop()


@contextmanager
def part(name: str) -> Iterator[None]:
    """Do what follows as this part of the step, one of ``PARTS``."""
    if not _running:
        yield
        return
    with _running[-1].part(name):
        yield
