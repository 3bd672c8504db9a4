"""Write files so that a crash leaves the old content or the new, never a part: write, flush, rename."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bimodal_cl.errors import UserError


@contextmanager
def open_atomically(path: Path, flush: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file next to ``path``, which is renamed to ``path`` at the end of the block.

    An exception in the block leaves ``path`` as it was, and no temporary file.

    Args:
        path: the file to write.
        flush: flush to the disk before the rename, so that the content also survives a power cut.

    Raises:
        OSError: the file cannot be written; its ``filename`` is set even if the system does not set it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            if flush:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # for a full disk the system sets no file name
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a UTF-8 text file with :func:`open_atomically`.

    Raises:
        UserError: the folder does not exist or may not be written to.
        OSError: the disk is full, say.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file")
    try:
        with open_atomically(path) as file:
            file.write(text.encode())
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def flush_folder(folder: Path) -> None:
    """Flush all files below a folder, and the folder itself, to the disk."""
    for path in [*(each for each in folder.rglob("*") if each.is_file()), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def point_link(link: Path, target: str) -> None:
    """Make or move a symbolic link by an atomic rename.

    Args:
        link: the link's path.
        target: what it points to, relative to the link's folder.
    """
    temporary = link.with_name(f"{link.name}.partial")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
