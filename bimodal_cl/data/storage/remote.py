"""Shards that are not files here: where their bytes come from (fsspec, HTTP servers, commands), and how often we try.

A source makes one try a call and says how it failed: ``TransferError`` may go well next time, ``UserError`` will not.
``fetch`` tries again from the byte where the last try broke off, and gives out no byte of a file of another size.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol, TypeVar

import fsspec.core

from bimodal_cl.data.storage.locations import PIPE, is_pipe, name_of
from bimodal_cl.errors import ServerFailed, UserError

logger = logging.getLogger(__name__)

CHUNK = 2**24  # bytes of one request to a fsspec file system
TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)
_QUIET_TRIES = 3  # failures in a row before anybody hears of them

Write = Callable[[int, bytes], object]
_Value = TypeVar("_Value")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
# What file systems call that which changes with a file's content: the first that is there counts. The later ones may
# change without it, and a version of several would change with any of them.
_VERSION_KEYS = (
    *("blob_id", "generation", "ETag", "etag"),
    *("LastModified", "last_modified", "mtime", "updated", "created"),
)


class TransferError(OSError):
    """A try that failed and may go well when it is repeated.

    Args:
        reason: what happened.
        wait: seconds that the server asks to wait; None: it does not say, and the connection just broke.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class WholeOnly(OSError):
    """The source cannot begin in the middle of the file."""


@dataclass(frozen=True)
class SourceInfo:
    """What a source says of its file.

    Args:
        size: bytes; None where it does not say.
        version: changes with the content (an entity tag, a time); "" where it does not say.
    """

    size: int | None = None
    version: str = ""


class Source(Protocol):
    """A file somewhere else. ``latest`` is what the last call of ``info`` or ``chunks`` learned of it.

    Several threads may use one at the same time.
    """

    name: str
    latest: SourceInfo

    def info(self) -> SourceInfo:
        """Ask for size and version: one try."""
        ...

    def chunks(self, start: int, stop: int | None) -> Generator[bytes, None, None]:
        """Give out the bytes from ``start`` to ``stop`` (None: the end), or fewer: one try. ``info`` comes first."""
        ...


@dataclass(frozen=True)
class RetryRule:
    """How often to try, and how long to wait in between.

    The wait doubles from ``first_delay`` to ``max_delay`` seconds, times a random factor of 0.5 to 1.5, so that many
    processes do not come back at once. The first retry after a mere drop of the connection comes at once. The default
    values bridge an outage of about two minutes.

    Args:
        retries: tries after the first one that may fail in a row without bringing a byte.
        first_delay, max_delay: seconds.
    """

    retries: int = 8
    first_delay: float = 1.0
    max_delay: float = 30.0

    def run(self, name: str, action: Callable[[], _Value]) -> _Value:
        """Do something until it does not raise ``TransferError``.

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
    """Counts the tries in a row that brought nothing, and waits after each."""

    def __init__(self, rule: RetryRule, name: str) -> None:
        self._rule, self._name = rule, name
        self.count = 0

    def wait(self, error: TransferError) -> None:
        """Wait before the next try.

        Raises:
            ServerFailed: there were enough.
        """
        self.count += 1
        if self.count > self._rule.retries:
            raise ServerFailed(f"shard {self._name}: {error} (tried {self.count} times)") from None
        if error.wait is None and self.count == 1:
            return
        delay = min(max(self._rule.first_delay * 2.0 ** (self.count - 1), error.wait or 0.0), self._rule.max_delay)
        # Not from the module's generator: what a run draws must not depend on the network, nor all ranks wait alike.
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
    write: Callable[[int, bytes], object],
    rule: RetryRule,
    version: str = "",
) -> int:
    """Bring the bytes from ``start`` to ``stop`` of a file, trying again where a try breaks off.

    Args:
        source: where they are.
        start, stop: bytes; None: all that the source has.
        size: of the whole file, as the manifest says; None: unknown.
        write: gets each piece with its offset in the file; a piece may come again after a file had to be begun anew.
        rule: how often to try.
        version: of the file that is wanted; "" for any.

    Returns:
        The byte after the last.

    Raises:
        UserError: the source refuses, or its file is of another size or version.
        WholeOnly: the source has no middle and ``start`` is not 0.
        ServerFailed: too many tries failed.
    """
    failures = Failures(rule, source.name)
    position = furthest = start
    begun, resumable = "", True  # the version that was begun with
    done = position == stop
    while not done:
        resumed = position > start
        try:
            with closing(source.chunks(position, stop)) as pieces:
                for data in pieces:
                    require_same(source, size, version)
                    if resumed and source.latest.version != begun:
                        position = start
                        raise TransferError("it changed in between")
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
    """Refuse a remote file of another size than the manifest's, or another version than was indexed.

    Raises:
        UserError: what the source said last and what is expected are both known, and differ.
    """
    found = source.latest
    mend = "`bimodal-prep index SHARDS --to FOLDER --overwrite` takes it as it is now"
    if found.size is not None and size is not None and found.size != size:
        raise UserError(
            f"shard {source.name}: holds {found.size} bytes but the manifest says {size}: it is "
            f"{'truncated' if found.size < size else 'changed'}; {mend}"
        )
    if found.version and version and found.version != version:
        raise UserError(
            f"shard {source.name}: it changed: its server calls it version {found.version}, and it was indexed as "
            f"{version}; {mend}"
        )


def base_name(location: str) -> str:
    """The file name at the end of a location; of a command, its last word's."""
    words = location.split() if is_pipe(location) else []
    path = words[-1] if words else location.partition("#")[0].partition("?")[0]
    return PurePosixPath(path).name


def open_source(location: str, timeout: float) -> Source:
    """Open what a location names; nothing is asked of it yet. To be used in the process that opens it.

    Raises:
        UserError: nothing here can read such a location.
    """
    if is_pipe(location):
        return PipeSource(location)
    if location.lower().startswith(("http://", "https://")):
        from bimodal_cl.data.storage.http import HttpSource

        return HttpSource(location, timeout)
    return FileSystemSource(location)


def open_file_system(location: str) -> tuple[Any, str]:
    """Return fsspec's file system for a location and the path in it.

    fsspec keeps one instance a process and makes a new one after a fork.

    Raises:
        UserError: no such protocol, or the package that knows it is not installed.
    """
    protocol = location.partition(":")[0].lower()
    try:
        return fsspec.core.url_to_fs(location)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        mend = f"`pip install 'bimodal_cl[{extra}]'`" if extra else str(error)
        raise UserError(f"{name_of(location)}: {protocol}:// needs a package that is not installed: {mend}") from None
    except ValueError as error:
        raise UserError(f"{name_of(location)}: {error}") from None


class FileSystemSource:
    """A file of a fsspec file system (``s3://``, ``gs://``, ``hf://``, ``memory://``, ...)."""

    def __init__(self, location: str) -> None:
        self.name = name_of(location)
        self.latest = SourceInfo()
        self._location, self._process = location, os.getpid()
        self._fs, self._path = open_file_system(location)

    def info(self) -> SourceInfo:
        """Ask for size and version: one try."""
        entry = self._ask("info")
        if entry.get("type") == "directory":
            raise UserError(f"shard {self.name}: is a folder")
        size = entry.get("size")
        version = next((f"{key}={entry[key]}" for key in _VERSION_KEYS if entry.get(key)), "")
        self.latest = SourceInfo(None if size is None else int(size), version)
        return self.latest

    def chunks(self, start: int, stop: int | None) -> Generator[bytes, None, None]:
        """Give out the bytes from ``start`` to ``stop``, in pieces of 16 MiB: one try.

        What is read to the end must still have the version of the last ``info`` then: pieces do not say theirs.
        """
        before = self.latest
        if stop is None:
            stop = before.size
        # File systems that open a file for a range would read 5 MiB ahead for each row.
        options = {} if getattr(self._fs, "async_impl", False) else {"cache_type": "none"}
        while stop is None or start < stop:
            end = start + CHUNK if stop is None else min(start + CHUNK, stop)
            data = self._ask("cat_file", start=start, end=end, **options)
            if len(data) > end - start:
                raise WholeOnly("the server sends whole files only")
            if not data:
                if stop is None:
                    return
                raise TransferError(f"no bytes at {start}")
            yield bytes(data)
            start += len(data)
        if start == before.size and self.info().version != before.version:
            raise TransferError("it changed in between")

    def _ask(self, method: str, **options: object) -> Any:
        """Call the file system, and sort the exceptions of a dozen libraries: those that may go away, and others."""
        if self._process != os.getpid():  # forked: the file system's event loop stayed behind
            self._fs, self._path = open_file_system(self._location)
            self._process = os.getpid()
        try:
            return getattr(self._fs, method)(self._path, **options)
        except (FileNotFoundError, IsADirectoryError):
            raise UserError(f"shard {self.name}: cannot be found") from None
        except (PermissionError, NotImplementedError, ImportError) as error:
            raise UserError(f"shard {self.name}: cannot be read: {_one_line(error)}") from None
        except Exception as error:
            status = _status_of(error)
            refused = status is not None and 400 <= status < 500 and status not in TRANSIENT_STATUS
            hopeless = any(word in type(error).__name__ for word in ("Credential", "Offline"))
            if refused or hopeless:
                raise UserError(f"shard {self.name}: cannot be read: {_one_line(error)}") from None
            raise TransferError(_one_line(error)) from None


def _status_of(error: Exception) -> int | None:
    for holder in (error, getattr(error, "response", None)):
        for attribute in ("status", "status_code", "code"):
            status = getattr(holder, attribute, None)
            if isinstance(status, int):
                return status
    return None


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")


class PipeSource:
    """The output of a command, ``pipe:COMMAND``, run by the shell. Whoever makes one has been allowed to."""

    def __init__(self, location: str) -> None:
        self.name = name_of(location)
        self.latest = SourceInfo()
        self._command = location[len(PIPE) :].strip()

    def info(self) -> SourceInfo:
        """Know nothing: only running it would tell."""
        return self.latest

    def chunks(self, start: int, stop: int | None) -> Generator[bytes, None, None]:
        """Run the command and give out its output: one try."""
        if start:
            raise WholeOnly("a command has no middle")
        with tempfile.TemporaryFile() as errors:
            # In a group of its own, so that all of a pipeline can be ended.
            process = subprocess.Popen(
                self._command,
                shell=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
            assert process.stdout is not None
            try:
                while data := process.stdout.read(2**20):
                    yield data
                status = process.wait()
            finally:
                if process.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                process.stdout.close()
            if status:
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines()
                raise TransferError(f"exit status {status}" + (f": {said[-1]}" if said else ""))
