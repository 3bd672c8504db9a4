"""Map a tar into memory, and refuse compressed files."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bimodal_cl.data.tar.header_fields import MAGIC, MAGIC_END
from bimodal_cl.errors import UserError

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}


@contextmanager
def map_tar(path: str | Path, name: str | Path) -> Iterator[mmap.mmap | None]:
    """Map the bytes of a tar into memory; None if the file is empty.

    Args:
        path: the file.
        name: of the shard, for messages.

    Raises:
        UserError: the file cannot be opened, or its content is compressed.
    """
    try:
        with Path(path).open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                yield None
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                _refuse_compressed(data, name)
                yield data
    except OSError as error:
        raise UserError(f"shard {name}: cannot be opened: {error.strerror}") from None


def _refuse_compressed(data: mmap.mmap, name: str | Path) -> None:
    """Refuse compressed data: a row in the middle cannot be read without decompressing everything before it."""
    for mark, kind in _COMPRESSED.items():
        if data[: len(mark)] == mark and data[MAGIC:MAGIC_END] != b"ustar":
            file = str(name).rpartition("/")[2]
            how = "unzip it and pack it as a tar" if kind == "zip" else f"`{kind} -dc < {file} > plain.tar` unpacks it"
            raise UserError(
                f"shard {name}: is compressed ({kind}); shards must be plain tars, since rows are read in any order: "
                f"{how}"
            )
