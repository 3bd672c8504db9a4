"""Retry with backoff, and resume a transfer at the byte where it broke off."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

from bimodal_cl.data.storage.sources.source import Source, TransferError, WholeOnly
from bimodal_cl.errors import ServerFailed, UserError

logger = logging.getLogger(__name__)

_QUIET_TRIES = 3  # failures in a row before a warning is logged

Write = Callable[[int, bytes], object]  # gets an offset in the file, and bytes
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class RetryRule:
    """How often to try, and how long to wait in between.

    The wait doubles from ``first_delay`` to ``max_delay`` seconds, times a random factor from 0.5 to 1.5, so that many
    processes do not come back at once. There is no wait before the first retry if the connection merely broke. The
    default values bridge an outage of about two minutes.

    Args:
        retries: failed attempts in a row, after the first one, that are allowed without a byte arriving.
        first_delay, max_delay: seconds.
    """

    retries: int = 8
    first_delay: float = 1.0
    max_delay: float = 30.0

    def run(self, name: str, action: Callable[[], _Value]) -> _Value:
        """Call ``action`` until it does not raise ``TransferError``.

        Raises:
            ServerFailed: it failed ``1 + retries`` times.
        """
        failures = Failures(self, name)
        while True:
            try:
                return action()
            except TransferError as error:  # noqa: PERF203  (a request takes longer)
                failures.wait(error)


class Failures:
    """Count the attempts in a row that brought no byte, and wait after each.

    Args:
        rule: how many failures are allowed, and the waits.
        name: of the source, for messages.
    """

    def __init__(self, rule: RetryRule, name: str) -> None:
        self._rule, self._name = rule, name
        self.count = 0

    def wait(self, error: TransferError) -> None:
        """Count a failure and wait before the next attempt.

        Raises:
            ServerFailed: there were more failures than the rule allows.
        """
        self.count += 1
        if self.count > self._rule.retries:
            raise ServerFailed(f"shard {self._name}: {error} (tried {self.count} times)") from None
        if error.wait is None and self.count == 1:
            return
        delay = min(max(self._rule.first_delay * 2.0 ** (self.count - 1), error.wait or 0.0), self._rule.max_delay)
        # The global generator is not used: what a run draws must not depend on the network, and ranks that are seeded
        # alike would wait alike.
        delay *= random.SystemRandom().uniform(0.5, 1.5)
        if self.count >= _QUIET_TRIES:
            tries = f"try {self.count + 1} of {self._rule.retries + 1}"
            logger.warning("shard %s: %s; %s in %.0f s", self._name, error, tries, delay)
        time.sleep(delay)


def fetch(
    source: Source,
    start: int,
    stop: int | None,
    size: int | None,
    write: Write,
    rule: RetryRule,
    version: str = "",
) -> int:
    """Fetch the bytes from ``start`` to ``stop`` of a file, and resume where an attempt breaks off.

    Args:
        source: of the bytes.
        start, stop: bytes; ``stop`` None: to the end of the file.
        size: of the whole file, as the manifest says, in bytes; None if unknown. No byte of a file of another size is
            passed on.
        write: gets each piece with its offset in the file; a piece may come again if a file had to be started again.
        rule: how often to try.
        version: of the file that is wanted; "" for any.

    Returns:
        The offset after the last byte.

    Raises:
        UserError: the source refuses, or its file has another size or version.
        WholeOnly: the source cannot serve ranges and ``start`` is not 0.
        ServerFailed: too many attempts failed.
    """
    failures = Failures(rule, source.name)
    position = furthest = start
    begun, resumable = "", True  # the version of the bytes so far
    done = position == stop
    while not done:
        resumed = position > start
        try:
            with closing(source.chunks(position, stop)) as pieces:
                for data in pieces:
                    require_same(source, size, version)
                    if resumed and source.latest.version != begun:
                        position = start
                        raise TransferError("it changed during the transfer")
                    begun, resumed = source.latest.version, False
                    if size is not None and position + len(data) > size:
                        raise UserError(f"shard {source.name}: holds more than the {size} bytes that the manifest says")
                    write(position, data)
                    position += len(data)
                    if position > furthest:
                        furthest, failures.count = position, 0
            if stop is not None and position != stop:
                raise TransferError(f"ends at byte {position}, before {stop}")
            done = True
        except WholeOnly:
            if position == start:
                raise
            position, resumable = start, False
        except TransferError as error:
            require_same(source, size, version)
            failures.wait(error)
            if not resumable or position == stop:
                position = start
    return position


def require_same(source: Source, size: int | None, version: str = "") -> None:
    """Refuse a remote file whose size differs from the manifest's, or whose version differs from the indexed one.

    Raises:
        UserError: what the source reported last and what is expected are both known, and differ.
    """
    found = source.latest
    hint = "`bimodal-prep index SHARDS --to FOLDER --overwrite` indexes it as it is now"
    if found.size is not None and size is not None and found.size != size:
        raise UserError(
            f"shard {source.name}: holds {found.size} bytes but the manifest says {size}: it is "
            f"{'truncated' if found.size < size else 'changed'}; {hint}"
        )
    if found.version and version and found.version != version:
        raise UserError(
            f"shard {source.name}: it changed: its server calls it version {found.version}, and it was indexed as "
            f"{version}; {hint}"
        )
