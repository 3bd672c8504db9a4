"""Open shards wherever they are: local files, cached copies of remote files, or remote files read by range requests.

Nothing that is downloaded is ever executed or unpickled; only a ``pipe:`` location runs a command, and only if allowed.
"""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bimodal_cl.data.storage.cache import NoRoom, ShardCache, release
from bimodal_cl.data.storage.locations import is_pipe, is_remote, redact
from bimodal_cl.data.storage.retry import RetryRule, Write, fetch, require_same
from bimodal_cl.data.storage.shard_file import LocalFile, RangeFile, ShardFile
from bimodal_cl.data.storage.sources.schemes import open_source
from bimodal_cl.data.storage.sources.source import Source, SourceInfo, WholeOnly
from bimodal_cl.errors import UserError

CACHE_BYTES = 16 * 2**30
_ATTEMPTS = 3  # to open a copy before another process evicts it


@dataclass(frozen=True)
class Storage:
    """How shards are opened. It is small and picklable: each worker gets one and opens its own connections.

    A remote shard that fits into the cache is downloaded whole when it is first opened, once for all processes of the
    machine; a larger one is read by range requests. Copies that no process has open are evicted to make room, least
    recently used first.

    Args:
        cache_dir: folder of the copies, best on a local disk; None: ``$XDG_CACHE_HOME/bimodal_cl/shards``.
        cache_bytes: limit of all copies together, >= 0; 0 keeps none.
        allow_pipe: run the commands of ``pipe:`` locations. A manifest from elsewhere can hold any command.
        retries: failed attempts in a row, after the first, that are allowed for a shard, >= 0.
        first_delay: seconds to wait after a failed attempt, >= 0; the wait doubles up to 30. See
            :class:`~bimodal_cl.data.storage.retry.RetryRule`.
        timeout: seconds without a byte after which an attempt has failed, > 0 (HTTP).
        connections: simultaneous requests of one process, >= 1.

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
            size: bytes, as the manifest says. Checked for remote shards; ``Manifest.load`` checks local ones.
            sha256: digest, as the manifest says, that a download is checked against; None for no check.
            version: of a remote shard when it was indexed, as its server called it; "" for any.

        Raises:
            UserError: the shard cannot be found or read, is not what was indexed, or is a command that is not allowed.
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
                return LocalFile(descriptor, self._cache.path(location), redact(location))
            why = f"copies of {self._cache.folder} are evicted as soon as they are made"
        if is_pipe(location):
            raise UserError(f"shard {location}: a command's output must be kept whole, but {why}")
        source = open_source(location, self.timeout)
        self._ask(source, size, version)
        return RangeFile(source, size, version, self._rule, why)

    def ask(self, location: str) -> SourceInfo:
        """Ask for size and version of a remote shard; those of a command are unknown.

        Raises:
            UserError: as :meth:`open`.
            ServerFailed: its server failed too often.
        """
        self._require_allowed(location)
        return self._ask(open_source(location, self.timeout), None)

    def local_copy(self, location: str) -> Path:
        """Return a local file with a shard's current bytes: the shard itself, or its copy in the cache.

        The copy stays in the cache at least until this thread asks for another one.

        Raises:
            UserError: as :meth:`open`, or the shard does not fit into the cache.
            ServerFailed: its server failed too often.
        """
        return self.local_version(location)[0] if is_remote(location) else Path(location)

    def local_version(self, location: str, info: SourceInfo | None = None) -> tuple[Path, str]:
        """Return the copy of a remote shard as :meth:`local_copy` does, and the version that it is a copy of.

        Args:
            location: a URL.
            info: the current answer of :meth:`ask`; None: ask now. A copy of that size and version is used, another one
                is replaced. A command always runs again.

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
                f"shard {redact(location)}: {error}; a larger cache_gb, or another cache_dir, helps"
            ) from None
        raise UserError(f"shard {redact(location)}: its copy is evicted as soon as it is made; a larger cache_gb helps")

    @property
    def _cache(self) -> ShardCache:
        return ShardCache(self.cache_dir or default_cache_dir(), self.cache_bytes)

    @property
    def _rule(self) -> RetryRule:
        return RetryRule(self.retries, self.first_delay)

    def _require_allowed(self, location: str) -> None:
        if is_pipe(location) and not self.allow_pipe:
            raise UserError(
                f"shard {location}: would run that command; if you trust its author, allow it: --allow-pipe, or "
                "--data.allow_pipe true of bimodal-train"
            )

    def _ask(self, source: Source, size: int | None, version: str = "") -> SourceInfo:
        info = self._rule.run(source.name, source.info)
        require_same(source, size, version)
        return info

    def _open_copy(self, location: str, size: int, sha256: str | None, version: str) -> int | None:
        """Open the copy of the manifest's size and the indexed version; download it first if there is none."""
        cache = self._cache
        have = partial(cache.open, location, size, version or None)
        for _ in range(_ATTEMPTS):
            descriptor = have()
            if descriptor is not None:
                return descriptor
            self._require_room(size)
            source = open_source(location, self.timeout)
            if not self._ask(source, size, version).version:  # asked before anything is evicted for the shard
                have = partial(cache.open, location, size)  # the server no longer reports a version
            descriptor = cache.add(location, size, partial(self._download, source, size, sha256, version), have)
            if descriptor is not None:
                return descriptor
        return None

    def _open_current(self, location: str, source: Source, info: SourceInfo) -> tuple[int | None, str]:
        """Open the copy of what the source has now, and return its version too."""
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
            if offset == 0:  # also after the download had to start again
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
                f"shard {source.name}: its bytes are not those of the manifest (another sha256): it changed; remove "
                "its sha256 from manifest.json to accept it as it is now"
            )
        return source.latest.version


class _LatestCopy(threading.local):
    """The open copy that a thread asked for last, which keeps it from being evicted."""

    descriptor: int | None = None
    process = 0

    def hold(self, descriptor: int) -> None:
        """Keep a descriptor open in place of the one before."""
        self.release()
        self.descriptor, self.process = descriptor, os.getpid()

    def release(self) -> None:
        """Close the descriptor."""
        if self.descriptor is None:
            return
        if self.process == os.getpid():
            release(self.descriptor)
        else:
            os.close(self.descriptor)  # forked: the parent unlocks it, which may still read it
        self.descriptor = None


_LATEST_COPY = _LatestCopy()


def default_cache_dir() -> Path:
    """Return ``$XDG_CACHE_HOME/bimodal_cl/shards``, below ``~/.cache`` if the variable is not set."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".cache") / "bimodal_cl" / "shards"
