"""The protocol of a source: a shard that is not a file of this machine, read in one attempt per call.

A source says how an attempt failed: another one may succeed after a ``TransferError``, but not after a ``UserError``.
:func:`~bimodal_cl.data.storage.retry.fetch` makes the attempts.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses after which another attempt may succeed


class TransferError(OSError):
    """An attempt failed, and another one may succeed.

    Args:
        reason: what happened.
        wait: seconds that the server asks the client to wait; None if it did not say and the connection just broke.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class WholeOnly(OSError):
    """The source cannot serve a byte range: it can only be read from the start."""


@dataclass(frozen=True)
class SourceInfo:
    """What a source reports about its file.

    Args:
        size: bytes; None if the source does not report it.
        version: a string that changes with the content (an entity tag, a time); "" if the source does not report one.
    """

    size: int | None = None
    version: str = ""


class Source(Protocol):
    """A file that is not on this machine. Several threads may use one at the same time.

    Attributes:
        name: the location for messages, without secrets.
        latest: what the last call of ``info`` or ``chunks`` learned about the file.
    """

    name: str
    latest: SourceInfo

    def info(self) -> SourceInfo:
        """Ask for size and version, in one attempt.

        Raises:
            TransferError: another attempt may succeed.
            UserError: the file cannot be read.
        """
        ...

    def chunks(self, start: int, stop: int | None) -> Generator[bytes, None, None]:
        """Yield the bytes from ``start`` to ``stop`` (None: to the end), or fewer, in one attempt after ``info``.

        Raises:
            WholeOnly: ``start`` is not 0 and the source cannot serve ranges.
            TransferError, UserError: as :meth:`info`.
        """
        ...
