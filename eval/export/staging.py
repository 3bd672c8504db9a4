"""Write a folder under a temporary name and rename it when it is complete, so that it is whole or absent."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bimodal_cl.errors import RunStopped, UserError, one_line
from bimodal_cl.files.atomic import flush_folder

MARKER = "export.json"  # every exported folder has it


def check_target(target: Path, overwrite: bool) -> None:
    """Check that a folder may be written; called before the model is loaded, so that a mistake shows early.

    Args:
        target: the folder to write; missing, empty, or, to `overwrite`, an earlier export.
        overwrite: replace an earlier export.

    Raises:
        UserError: it is a file, or holds anything else.
    """
    if target.exists() and not target.is_dir():
        raise UserError(f"--to {target}: is not a folder; name a new or empty one")
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not (target / MARKER).is_file():
        raise UserError(f"--to {target}: the folder holds other files than an export; name a new or empty one")
    if not overwrite:
        raise UserError(f"--to {target}: the folder holds an export; give --overwrite to replace it")


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`, which becomes `target` at the end of the block.

    An exception in the block leaves `target` as it was and no temporary folder. A folder that a killed command left is
    deleted by the next one of the same target.

    Raises:
        UserError: the folder cannot be made.
        RunStopped: a file cannot be written, for example on a full disk.
    """
    target = target.resolve()
    partial, old = (target.with_name(f".{target.name}.{word}") for word in ("partial", "replaced"))
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"--to {target}: cannot be written: {error.strerror}") from None
    try:
        yield partial
        _share(partial)
        flush_folder(partial)
        if target.is_dir():
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
        partial.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EBUSY, errno.EXDEV):
            raise UserError(f"--to {target}: is a mount point; name a new folder in it") from None
        if not _is_write_failure(error):
            raise
        raise RunStopped(f"{target} could not be written: {one_line(error)}; nothing is left of it") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if old.is_dir() and not target.exists():
            old.rename(target)


def _share(folder: Path) -> None:
    """Give every file the permissions of a new file; safetensors lets only the owner read what it writes."""
    probe = folder / ".probe"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def _is_write_failure(error: Exception) -> bool:
    """Return whether a file could not be written; safetensors and torch report a full disk by errors of their own."""
    from safetensors import SafetensorError

    return isinstance(error, (OSError, SafetensorError)) or "PytorchStreamWriter" in str(error)
