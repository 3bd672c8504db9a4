"""Read bytes of an open shard: a local file or cached copy, or a remote file by range requests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from bimodal_cl.data.storage.retry import RetryRule, fetch
from bimodal_cl.data.storage.sources.source import Source, WholeOnly
from bimodal_cl.errors import UserError


class ShardFile(Protocol):
    """An open shard.

    Attributes:
        ranged: whether each read is a range request to a server.
        path: its file on this machine; None if ``ranged``.
    """

    ranged: bool
    path: Path | None

    def read(self, offset: int, size: int) -> bytes:
        """Read exactly ``size`` bytes at ``offset``. Several threads may read at once.

        Raises:
            UserError: the shard is not what the manifest says.
            ServerFailed: the server failed too often.
            OSError: the disk failed.
        """
        ...

    def close(self) -> None:
        """Close the shard; closing it twice is harmless."""
        ...


class LocalFile:
    """A shard, or the cached copy of one, on this machine.

    Args:
        descriptor: of the open file, which this closes.
        path: of the file.
        name: of the shard, for messages.
    """

    ranged = False

    def __init__(self, descriptor: int, path: Path, name: str) -> None:
        self._descriptor: int | None = descriptor
        self.path: Path | None = path
        self._name = name

    def read(self, offset: int, size: int) -> bytes:
        """Read exactly ``size`` bytes; the file's position is neither used nor moved.

        Raises:
            UserError: the file ends before that.
            OSError: the disk failed.
        """
        assert self._descriptor is not None, "closed"
        data = os.pread(self._descriptor, size, offset)
        while len(data) < size:  # the system returns at most 2 GiB at a time
            more = os.pread(self._descriptor, size - len(data), offset + len(data))
            if not more:
                raise UserError(
                    f"shard {self._name}: ends inside the member at byte {offset}; it changed while it was read"
                )
            data += more
        return data

    def close(self) -> None:
        """Close the file, which also releases the lock that keeps a copy in the cache."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class RangeFile:
    """A remote shard without a local copy: each read is a range request.

    Args:
        source: of the shard.
        size: bytes, as the manifest says.
        version: that the shard must have; "" for any.
        rule: how often to try.
        why: the reason why there is no local copy, for messages.
    """

    ranged = True
    path: Path | None = None

    def __init__(self, source: Source, size: int, version: str, rule: RetryRule, why: str) -> None:
        self._source, self._size, self._version, self._rule, self._why = source, size, version, rule, why

    def read(self, offset: int, size: int) -> bytes:
        """Read exactly ``size`` bytes, with retries.

        Raises:
            UserError: the shard has another size than the manifest says, or has changed since it was indexed, or its
                server does not support range requests.
            ServerFailed: too many attempts failed.
        """
        stop = offset + size
        if stop > self._size:
            raise UserError(f"shard {self._source.name}: has no bytes {offset} to {stop}, only {self._size}")
        buffer = bytearray(size)

        def write(position: int, data: bytes) -> None:
            buffer[position - offset : position - offset + len(data)] = data

        try:
            fetch(self._source, offset, stop, self._size, write, self._rule, self._version)
        except WholeOnly as error:
            raise UserError(f"shard {self._source.name}: cannot be read by ranges ({error}), and {self._why}") from None
        return bytes(buffer)

    def close(self) -> None:
        """Do nothing: the process keeps its connections."""
