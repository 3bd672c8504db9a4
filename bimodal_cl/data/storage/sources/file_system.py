"""Read a file of any file system that fsspec knows: ``s3://``, ``gs://``, ``hf://``, ``memory://``, ..."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import fsspec.core

from bimodal_cl.data.storage.locations import redact
from bimodal_cl.data.storage.sources.source import TRANSIENT_STATUS, SourceInfo, TransferError, WholeOnly
from bimodal_cl.errors import UserError

CHUNK = 2**24  # bytes of one request
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}  # our optional dependencies, by protocol
# The entries of ``info`` that change with a file's content: the first one that is present counts. The later ones may
# change without the content, and a version made of several would change with any of them.
_VERSION_KEYS = (
    *("blob_id", "generation", "ETag", "etag"),
    *("LastModified", "last_modified", "mtime", "updated", "created"),
)


def open_file_system(location: str) -> tuple[Any, str]:
    """Return fsspec's file system for a location, and the path in it.

    fsspec keeps one instance per process and makes a new one after a fork.

    Raises:
        UserError: there is no such protocol, or the package that implements it is not installed.
    """
    protocol = location.partition(":")[0].lower()
    try:
        return fsspec.core.url_to_fs(location)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        hint = f"`pip install 'bimodal_cl[{extra}]'`" if extra else str(error)
        raise UserError(f"{redact(location)}: {protocol}:// needs a package that is not installed: {hint}") from None
    except ValueError as error:
        raise UserError(f"{redact(location)}: {error}") from None


class FileSystemSource:
    """A file of a fsspec file system."""

    def __init__(self, location: str) -> None:
        self.name = redact(location)
        self.latest = SourceInfo()
        self._location, self._process = location, os.getpid()
        self._fs, self._path = open_file_system(location)

    def info(self) -> SourceInfo:
        """Ask for size and version, in one attempt."""
        entry = self._ask("info")
        if entry.get("type") == "directory":
            raise UserError(f"shard {self.name}: is a folder")
        size = entry.get("size")
        version = next((f"{key}={entry[key]}" for key in _VERSION_KEYS if entry.get(key)), "")
        self.latest = SourceInfo(None if size is None else int(size), version)
        return self.latest

    def chunks(self, start: int, stop: int | None) -> Generator[bytes, None, None]:
        """Yield the bytes from ``start`` to ``stop`` in pieces of 16 MiB, in one attempt.

        Pieces do not carry a version, so the version is asked for again after the last byte of the file and must be
        that of the last ``info``.
        """
        before = self.latest
        if stop is None:
            stop = before.size
        # A file system that opens a file for a range would read 5 MiB ahead for each row.
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
            raise TransferError("it changed during the transfer")

    def _ask(self, method: str, **options: object) -> Any:
        """Call the file system and turn the exceptions of a dozen libraries into ours."""
        if self._process != os.getpid():  # forked: the file system's event loop stayed in the parent
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
    """Return the HTTP status that an exception holds, if any."""
    for holder in (error, getattr(error, "response", None)):
        for attribute in ("status", "status_code", "code"):
            status = getattr(holder, attribute, None)
            if isinstance(status, int):
                return status
    return None


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
