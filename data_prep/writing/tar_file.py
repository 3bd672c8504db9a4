"""Write tars whose bytes depend on their members alone, not on time, owner or platform.

``tarfile`` writes the members; webdataset's ``TarWriter`` would add times and owners, and computes no hash.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

MAX_NAME = 100  # bytes for a member's name in a plain header


def fits_header(name: str) -> bool:
    """Return whether a member's name fits a plain header."""
    return len(name.encode("utf-8", "surrogateescape")) <= MAX_NAME


class _HashedFile:
    """The part of a file's interface that ``tarfile`` needs for writing; hashes what is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self.size


class TarWriter:
    """Write one tar, as a context manager; after it is closed, ``size`` and ``sha256`` describe the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.sha256 = ""

    def __enter__(self) -> TarWriter:
        self._file = self.path.open("wb")
        self._hashed = _HashedFile(self._file)
        self._tar = tarfile.open(fileobj=self._hashed, mode="w", format=tarfile.USTAR_FORMAT)  # type: ignore[call-overload]
        return self

    def write_sample(self, key: str, members: Mapping[str, bytes]) -> None:
        """Append the members of one sample, in their order.

        Args:
            key: a safe key.
            members: content by extension, with its dot; each name must fit a header.
        """
        for extension, content in members.items():
            info = tarfile.TarInfo(key + extension)  # mtime 0, uid 0, no owner's name
            info.size = len(content)
            self._tar.addfile(info, io.BytesIO(content))

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._tar.close()
                self._file.flush()
                os.fsync(self._file.fileno())  # the manifest must not outlive the shards in a power failure
                self.size, self.sha256 = self._hashed.size, self._hashed.sha256.hexdigest()
        finally:
            self._file.close()
