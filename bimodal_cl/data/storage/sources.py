"""Where the bytes of shards come from: files of this machine, or other places by way of a cache or of range requests.

Nothing that arrives is ever executed or unpickled; only ``pipe:`` runs something, and only where it was allowed.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from bimodal_cl.data.storage.cache import NoRoom, ShardCache, release
from bimodal_cl.data.storage.locations import is_pipe, is_remote, name_of
from bimodal_cl.data.storage.remote import (
    RetryRule,
    Source,
    SourceInfo,
    WholeOnly,
    Write,
    fetch,
    open_source,
    require_same,
)
from bimodal_cl.errors import UserError

CACHE_BYTES = 16 * 2**30
_ATTEMPTS = 3  # to open a copy before somebody evicts it


class ShardFile(Protocol):
    """An open shard.

    Attributes:
        ranged: whether each read is a request to a server.
        path: its file on this machine; None where ``ranged``.
    """

    ranged: bool
    path: Path | None

    def read(self, offset: int, size: int) -> bytes:
        """Read exactly ``size`` bytes at ``offset``. Several threads may do so at once.

        Raises:
            UserError: the shard is not what the manifest says.
            ServerFailed: the server failed too often.
            OSError: the disk failed.
        """
        ...

    def close(self) -> None:
        """Close it; a second time does nothing."""
        ...


class LocalFile:
    """A shard, or the cache's copy of one, on this machine. Owns the descriptor."""

    ranged = False

    def __init__(self, descriptor: int, path: Path, name: str) -> None:
        self._descriptor: int | None = descriptor
        self.path: Path | None = path
        self._name = name

    def read(self, offset: int, size: int) -> bytes:
        """Read exactly ``size`` bytes; the file's position is neither used nor moved.

        Raises:
            UserError: the file ends before.
            OSError: the disk failed.
        """
        assert self._descriptor is not None, "closed"
        data = os.pread(self._descriptor, size, offset)
        while len(data) < size:  # the system gives at most 2 GiB at a time
            more = os.pread(self._descriptor, size - len(data), offset + len(data))
            if not more:
                raise UserError(
                    f"shard {self._name}: ends inside the member at byte {offset}; it changed while it was read"
                )
            data += more
        return data

    def close(self) -> None:
        """Close it, and with it the lock that keeps a copy in the cache."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class RangeFile:
    """A shard that stays where it is: each read is a request."""

    ranged = True
    path: Path | None = None

    def __init__(self, source: Source, size: int, version: str, rule: RetryRule, why: str) -> None:
        self._source, self._size, self._version, self._rule, self._why = source, size, version, rule, why

    def read(self, offset: int, size: int) -> bytes:
        """Read exactly ``size`` bytes, trying again where the connection breaks.

        Raises:
            UserError: it is of another size than the manifest says, or has changed since it was indexed, or its server
                knows no ranges.
            ServerFailed: too many tries failed.
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
        """Do nothing: connections belong to the process."""


@dataclass(frozen=True)
class Storage:
    """How shards are reached. Small and picklable: workers get it, and open connections of their own.

    A remote shard that fits into the cache is downloaded whole when it is first opened, once for all processes of the
    machine; another one is read by range requests. Copies that nobody has open make room, least recently used first.

    Args:
        cache_dir: folder of the copies; None: ``$XDG_CACHE_HOME/bimodal_cl/shards``. On a local disk, best.
        cache_bytes: limit of all copies together, >= 0; 0 keeps none.
        allow_pipe: run the commands of ``pipe:`` locations. A manifest from elsewhere can hold any command.
        retries: failed tries in a row, after the first, that a shard's server may have, >= 0.
        first_delay: seconds to wait, >= 0; doubled with each of them, up to 30. See :class:`RetryRule`.
        timeout: seconds without a byte after which a try has failed, > 0 (HTTP).
        connections: requests of one process at a time, >= 1.

    Raises:
        UserError: a value is out of range.
    """

    cache_dir: Path | None = None
    cache_bytes: int = CACHE_BYTES
    allow_pipe: bool = False
    retries: int = 8
    first_delay: float = 1.0
    timeout: float = 60.0
    connections: int = 16

    def __post_init__(self) -> None:
        for name, least in (("cache_bytes", 0), ("retries", 0), ("first_delay", 0), ("connections", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be >= {least}, got {getattr(self, name)}")
        if self.timeout <= 0:
            raise UserError(f"timeout must be > 0, got {self.timeout}")

    def open(self, location: str, size: int, sha256: str | None = None, version: str = "") -> ShardFile:
        """Open a shard; a remote one may be downloaded first.

        Args:
            location: a path or a URL.
            size: bytes that the manifest says it has (checked for remote ones; of local ones ``Manifest.load`` does).
            sha256: digest that the manifest says; a download is checked against it.
            version: that a remote one had when it was indexed, as its server called it; "" for any.

        Raises:
            UserError: it cannot be found or read, is not what was indexed, or is a command that is not allowed.
            ServerFailed: its server, or the command, failed too often.
        """
        if not is_remote(location):
            try:
                return LocalFile(os.open(location, os.O_RDONLY), Path(location), location)
            except OSError as error:
                raise UserError(f"shard {location}: cannot be opened: {error.strerror}") from None
        self._require_allowed(location)
        try:
            descriptor = self._open_copy(location, size, sha256, version)
        except NoRoom as error:
            why = f"{error}; a larger cache_gb helps"
        else:
            if descriptor is not None:
                return LocalFile(descriptor, self._cache.path(location), name_of(location))
            why = f"copies of {self._cache.folder} are evicted as soon as they are made"
        if is_pipe(location):
            raise UserError(f"shard {location}: a command's output must be kept whole, but {why}")
        source = open_source(location, self.timeout)
        self._ask(source, size, version)
        return RangeFile(source, size, version, self._rule, why)

    def ask(self, location: str) -> SourceInfo:
        """Ask what a remote shard is now; of a command nobody can tell.

        Raises:
            UserError: as :meth:`open`.
            ServerFailed: its server failed too often.
        """
        self._require_allowed(location)
        return self._ask(open_source(location, self.timeout), None)

    def local_copy(self, location: str) -> Path:
        """Return a file with a shard's bytes as they are now: the shard itself, or the cache's copy of it.

        The copy stays in the cache at least until this thread asks for another one.

        Raises:
            UserError: as :meth:`open`, or it does not fit into the cache.
            ServerFailed: its server failed too often.
        """
        return self.local_version(location)[0] if is_remote(location) else Path(location)

    def local_version(self, location: str, info: SourceInfo | None = None) -> tuple[Path, str]:
        """Return the copy of a remote shard as :meth:`local_copy`, and the version that it is a copy of.

        Args:
            location: a URL.
            info: what :meth:`ask` said just now; None asks. A copy that has its size and version is taken, another one
                is replaced. A command is always run anew.

        Raises:
            UserError, ServerFailed: as :meth:`local_copy`.
        """
        self._require_allowed(location)
        _LATEST_COPY.release()
        source = open_source(location, self.timeout)
        now = self._ask(source, None) if info is None else info
        try:
            for _ in range(_ATTEMPTS):
                descriptor, version = self._open_current(location, source, now)
                if descriptor is not None:
                    _LATEST_COPY.hold(descriptor)
                    return self._cache.path(location), version
        except NoRoom as error:
            raise UserError(
                f"shard {name_of(location)}: {error}; a larger cache_gb, or another cache_dir, helps"
            ) from None
        raise UserError(
            f"shard {name_of(location)}: its copy is evicted as soon as it is made; a larger cache_gb helps"
        )

    @property
    def _cache(self) -> ShardCache:
        return ShardCache(self.cache_dir or default_cache_dir(), self.cache_bytes)

    @property
    def _rule(self) -> RetryRule:
        return RetryRule(self.retries, self.first_delay)

    def _require_allowed(self, location: str) -> None:
        if is_pipe(location) and not self.allow_pipe:
            raise UserError(
                f"shard {location}: would run that command; if you trust whoever wrote it, let it: --allow-pipe, or "
                "--data.allow_pipe true of bimodal-train"
            )

    def _ask(self, source: Source, size: int | None, version: str = "") -> SourceInfo:
        info = self._rule.run(source.name, source.info)
        require_same(source, size, version)
        return info

    def _open_copy(self, location: str, size: int, sha256: str | None, version: str) -> int | None:
        """Open the copy of the manifest's size and the indexed version, made now if there is none."""
        cache = self._cache
        have = partial(cache.open, location, size, version or None)
        for _ in range(_ATTEMPTS):
            descriptor = have()
            if descriptor is not None:
                return descriptor
            self._require_room(size)
            source = open_source(location, self.timeout)
            if not self._ask(source, size, version).version:  # before anything is evicted for it
                have = partial(cache.open, location, size)  # its server says no longer which version it has
            descriptor = cache.add(location, size, partial(self._download, source, size, sha256, version), have)
            if descriptor is not None:
                return descriptor
        return None

    def _open_current(self, location: str, source: Source, info: SourceInfo) -> tuple[int | None, str]:
        """Open the copy of what the source has now; also says which version that is."""
        cache = self._cache
        known = info.size is not None or bool(info.version)
        filled: list[str] = []

        def have() -> int | None:
            if filled:
                return cache.open(location, info.size, filled[0] or None)
            return cache.open(location, info.size, info.version or None) if known else None

        def fill(write: Write) -> str:
            filled[:] = [self._download(source, info.size, None, "", write)]
            return filled[0]

        descriptor = have()
        if descriptor is None:
            self._require_room(info.size or 0)
            descriptor = cache.add(location, info.size, fill, have)
        return descriptor, filled[0] if filled else info.version

    def _require_room(self, size: int) -> None:
        if size > self.cache_bytes or not self.cache_bytes:
            raise NoRoom(f"its {size} bytes do not fit into the {self.cache_bytes} of {self._cache.folder}")

    def _download(self, source: Source, size: int | None, sha256: str | None, version: str, write: Write) -> str:
        digest = hashlib.sha256()

        def write_and_hash(offset: int, data: bytes) -> None:
            nonlocal digest
            if offset == 0:  # also where the source made us begin anew
                digest = hashlib.sha256()
            if sha256 is not None:
                digest.update(data)
            write(offset, data)

        try:
            fetch(source, 0, size, size, write_and_hash, self._rule, version)
        except WholeOnly as error:
            raise UserError(f"shard {source.name}: cannot be read: {error}") from None
        if sha256 is not None and digest.hexdigest() != sha256.lower():
            raise UserError(
                f"shard {source.name}: its bytes are not those of the manifest (another sha256): it changed; without "
                "its sha256 in manifest.json it is taken as it is now"
            )
        return source.latest.version


class _LatestCopy(threading.local):
    """Keeps the copy that a thread asked for last from being evicted."""

    descriptor: int | None = None
    process = 0

    def hold(self, descriptor: int) -> None:
        self.release()
        self.descriptor, self.process = descriptor, os.getpid()

    def release(self) -> None:
        if self.descriptor is None:
            return
        if self.process == os.getpid():
            release(self.descriptor)
        else:
            os.close(self.descriptor)  # forked: to unlock is for the parent, who may still read it
        self.descriptor = None


_LATEST_COPY = _LatestCopy()


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/bimodal_cl/shards``; without that variable, below ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".cache") / "bimodal_cl" / "shards"


def run_concurrently(jobs: Sequence[Callable[[], None]], limit: int) -> None:
    """Run jobs that wait for the network, up to ``limit`` at a time, in any order.

    The threads are daemons and end with the work: none is left when a process forks, none delays its exit.

    Raises:
        BaseException: the first that a job raised, once those that had begun have ended.
    """
    waiting = list(jobs)
    # Workers of a machine want the same shards at the same time. In another order each, they share the downloads.
    random.SystemRandom().shuffle(waiting)
    errors: list[BaseException] = []

    def work() -> None:
        while waiting and not errors:
            try:
                job = waiting.pop()
            except IndexError:
                return
            try:
                job()
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(limit, len(waiting)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        waiting.clear()  # after Ctrl-C: begin no more
    if errors:
        raise errors[0]
