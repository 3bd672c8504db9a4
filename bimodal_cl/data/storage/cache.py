"""Cache copies of remote shards in a folder of limited size that all processes of a machine share.

All locks are those of ``flock``, which end with the process that holds them, however it ends:

- An entry has a shared lock as long as it is open. Only entries without a lock are evicted, least recently used first.
- A download is a ``.part`` file with an exclusive lock of the process that fills it; other processes wait for it. An
  atomic rename makes it the entry, so an entry is always whole. The ``.part`` of a killed process is evicted like any
  other file.
- Entries are evicted, and space is reserved by giving the ``.part`` its final length, under the lock of the folder.

The access time of an entry is its last use, which this module sets; its modification time encodes the version of the
source that it is a copy of.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bimodal_cl.data.storage.locations import base_name
from bimodal_cl.data.storage.retry import Write
from bimodal_cl.errors import UserError

logger = logging.getLogger(__name__)

# Space left free on the disk: a cache that fills it would make checkpoints and other programs fail.
FREE_BYTES = 2**30
_STEP = 2**26  # bytes reserved at a time if the size is not known in advance
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.002, 0.1  # seconds between polls of another process's download
_ENTRY = re.compile(r"[0-9a-f]{32}-[A-Za-z0-9._-]*\.(shard|part)$")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class NoRoom(Exception):
    """A shard does not fit into the cache or on its disk, because everything there is in use."""


class ShardCache:
    """A cache of remote shards.

    Args:
        folder: of the copies; made when it is first needed. Other files in it are left alone.
        limit: of all copies and downloads together, bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit

    def path(self, location: str) -> Path:
        """Return the path of a shard's copy, whether or not it exists."""
        digest = hashlib.sha256(location.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        name = re.sub(r"[^A-Za-z0-9._-]", "_", base_name(location))[-80:]
        return self.folder / f"{digest}-{name}.shard"

    def open(self, location: str, size: int | None = None, version: str | None = None) -> int | None:
        """Open a shard's copy and lock it against eviction until the descriptor, the caller's, is closed.

        Args:
            location: of the shard.
            size: that the copy must have, bytes; None for any.
            version: of the source, which the copy must be of; None for any.

        Returns:
            The descriptor; None if there is no such copy.
        """
        path = self.path(location)
        try:
            with self._usable(missing_ok=True):
                descriptor = os.open(path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            _lock(descriptor, fcntl.LOCK_SH)
            stat = os.fstat(descriptor)
            evicted = stat.st_nlink == 0
            if evicted or (size is not None and stat.st_size != size):
                raise FileNotFoundError
            if version is not None and stat.st_mtime_ns // 1000 != version_time(version) // 1000:
                raise FileNotFoundError
            with suppress(PermissionError):  # another user's copy, whose access time only that user can set
                # Set by descriptor: the path may lead to another version by now.
                os.utime(descriptor, ns=(time.time_ns(), stat.st_mtime_ns))
        except FileNotFoundError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def add(
        self, location: str, size: int | None, fill: Callable[[Write], str], have: Callable[[], int | None]
    ) -> int | None:
        """Download a shard into the cache, or wait for the process that is doing so.

        Args:
            location: of the shard.
            size: bytes; None if it is not known before the download.
            fill: downloads: it calls its argument with offsets and bytes, and returns the version.
            have: opens a valid copy, or returns None; called again once other processes have finished.

        Returns:
            The copy's descriptor, as :meth:`open` returns it.

        Raises:
            NoRoom: the shard does not fit next to the entries in use, or the disk is full.
            UserError: the folder cannot be written.
        """
        final = self.path(location)
        part = final.with_suffix(".part")
        with self._usable():
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = _open_part(part)
        renamed = False
        try:
            found = have()
            if found is not None:
                return found
            os.truncate(descriptor, 0)
            reserved = self._reserve(descriptor, part, size or 0)

            def write(offset: int, data: bytes) -> None:
                nonlocal reserved
                if offset + len(data) > reserved:
                    reserved = self._reserve(descriptor, part, offset + len(data) + _STEP)
                _write_all(descriptor, data, offset)

            length = _Furthest(write)
            version = fill(length)
            os.truncate(descriptor, length.stop)
            modified = version_time(version) if version else time.time_ns()
            os.utime(descriptor, ns=(time.time_ns(), modified))
            os.fsync(descriptor)  # without it, a power cut could leave an entry of the right length, full of zeros
            with self._folder_locked():  # a process that adds up the folder could otherwise miss both names
                part.rename(final)
            renamed = True
        except OSError as error:
            if error.errno not in _DISK_FULL:
                raise
            raise NoRoom(f"the disk of {self.folder} is full") from None
        finally:
            if not renamed:
                part.unlink(missing_ok=True)
            release(descriptor)
        return have()

    def _reserve(self, descriptor: int, part: Path, size: int) -> int:
        """Reserve space for a download: evict what was used least recently and give the file its length."""
        with self._folder_locked():
            others = [(path, stat) for path, stat in self._files() if path != part]
            own = os.fstat(descriptor)
            total = sum(stat.st_size for _, stat in others)
            free = shutil.disk_usage(self.folder).free - FREE_BYTES
            # Other downloads have reserved more than they have written so far.
            free -= sum(stat.st_size - stat.st_blocks * 512 for path, stat in others if path.suffix == ".part")
            excess = max(total + size - self.limit, size - own.st_blocks * 512 - free)
            if excess > 0 and not _evict(sorted(others, key=_last_use), excess):
                raise NoRoom(f"no space for {size} bytes: too much of the {self.limit} of {self.folder} is in use")
            os.truncate(descriptor, size)
        return size

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if _ENTRY.match(entry.name):
                    with suppress(FileNotFoundError):
                        yield Path(entry.path), entry.stat()

    @contextmanager
    def _folder_locked(self) -> Iterator[None]:
        with self._usable():
            descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            release(descriptor)

    @contextmanager
    def _usable(self, missing_ok: bool = False) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _DISK_FULL:
                raise NoRoom(f"the disk of {self.folder} is full") from None
            if missing_ok and isinstance(error, FileNotFoundError | NotADirectoryError):
                raise
            raise UserError(
                f"{self.folder}: cannot hold the cache of shards: {error.strerror}; set another cache_dir, or "
                "cache_gb 0 for no cache"
            ) from None


class _Furthest:
    """Pass bytes on and remember where they end; at offset 0 the download starts again."""

    def __init__(self, write: Write) -> None:
        self._write, self.stop = write, 0

    def __call__(self, offset: int, data: bytes) -> None:
        self._write(offset, data)
        self.stop = offset + len(data)


def version_time(version: str) -> int:
    """Return a time, ns, that encodes a version: the same on every machine, since several may share a cache."""
    digest = int.from_bytes(hashlib.sha256(version.encode()).digest()[:6], "big")
    return 10**18 + digest % 10**14 * 1000  # whole microseconds of the three years after 2001-09-09


def _last_use(file: tuple[Path, os.stat_result]) -> tuple[bool, int]:
    path, stat = file
    return path.suffix != ".part", stat.st_atime_ns  # downloads of killed processes go first


def _evict(files: list[tuple[Path, os.stat_result]], needed: int) -> bool:
    """Remove the first files without a lock until ``needed`` bytes are free; remove none if that is impossible."""
    locked: list[tuple[Path, int]] = []
    try:
        for path, stat in files:
            if needed <= 0:
                break
            with suppress(FileNotFoundError, PermissionError):
                descriptor = os.open(path, os.O_RDWR)
                locked.append((path, descriptor))
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if not os.path.samestat(path.stat(), os.fstat(descriptor)):
                        raise FileNotFoundError  # replaced since it was listed
                except (BlockingIOError, FileNotFoundError):
                    os.close(locked.pop()[1])
                    continue
                needed -= stat.st_size
        if needed > 0:
            return False
        for path, _ in locked:
            path.unlink(missing_ok=True)
            logger.debug("evicted %s", path)
        return True
    finally:
        for _, descriptor in locked:
            release(descriptor)


def _open_part(part: Path) -> int:
    """Open and lock the file of a download; wait while another process has it locked.

    This polls: a process that waited in the kernel would still wait after the file was renamed, for every process that
    has the entry open.
    """
    pause = _SHORTEST_PAUSE
    while True:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):  # renamed or evicted since it was opened
                if os.path.samestat(part.stat(), os.fstat(descriptor)):
                    return descriptor
        except BlockingIOError:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> None:
    try:
        fcntl.flock(descriptor, kind)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        raise UserError(
            f"the cache of shards is on a file system without locks ({error.strerror}); choose another cache_dir"
        ) from None


def release(descriptor: int) -> None:
    """Unlock a file of the cache and close it.

    A process that was forked in the meantime has the descriptor too, so closing it here would not unlock it.
    """
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
