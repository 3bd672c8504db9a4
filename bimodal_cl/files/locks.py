"""Hold the lock of a folder, so that only one process writes to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bimodal_cl.errors import UserError

try:
    import fcntl
except ImportError:  # Windows lacks this lock, so two processes on one folder are not detected there
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(folder: Path, busy: str | None = None, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a folder; a process that ends, however it does, lets it go.

    Args:
        folder: it exists.
        busy: the message where another process holds the lock.
        wait: wait for that process instead.

    Raises:
        UserError: another process holds it.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(busy or f"another command is writing to {folder}") from None
        except OSError:
            pass  # the file system has no locks
        yield
    finally:
        os.close(descriptor)
