"""Check that input files and folders exist, and suggest the nearest name if one does not."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from bimodal_cl.cli.progress import note
from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.image_files import describe_endings
from bimodal_cl.files.tar_files import count_other_shards

_MAX_NEIGHBOURS = 2000  # names that a mistyped one is compared with; a folder can hold millions


def require_folder(path: Path, flag: str = "") -> Path:
    """Return ``path`` if it is a folder.

    Args:
        path: the user's path.
        flag: the flag that it was given with, for the message; "" for a positional argument.

    Raises:
        UserError: it is not a folder; the message suggests the nearest name of a folder.
    """
    if path.is_dir():
        return path
    what = f"{path} is a file, not a folder" if path.exists() else f"no such folder: {path}"
    raise UserError(f"{_prefix(flag)}{what}{suggest_path(path, folders=True)}")


def require_file(path: Path, flag: str = "") -> Path:
    """Return ``path`` if it is a file (or a pipe).

    Args:
        path: the user's path.
        flag: as in :func:`require_folder`.

    Raises:
        UserError: it is not a file; the message suggests the nearest name of a file.
    """
    if path.exists() and not path.is_dir():
        return path
    what = f"{path} is a folder, not a file" if path.exists() else f"no such file: {path}"
    raise UserError(f"{_prefix(flag)}{what}{suggest_path(path, folders=False)}")


def note_other_shards(folder: Path) -> None:
    """Note the files of a folder that may be shards and are left out: compressed tars, and tars in sub-folders."""
    others = count_other_shards(folder)
    if others:
        note(f"{folder}: left out: {describe_endings(others)}")


def suggest_path(path: Path, folders: bool | None = None) -> str:
    """Name the nearest neighbour of the first part of a path that is missing, as :func:`did_you_mean` does.

    Args:
        path: a path, which may be missing.
        folders: True to suggest folders only, False to suggest files only; None: both.

    Returns:
        The hint; "" if the path exists.
    """
    if path.exists():
        return ""
    while path.parent != path and not path.parent.is_dir():
        path, folders = path.parent, folders if folders is None else True
    try:
        beside = list(islice(path.parent.iterdir(), _MAX_NEIGHBOURS))
    except OSError:
        return ""
    names = [entry.name for entry in beside if folders is None or entry.is_dir() == folders]
    return did_you_mean(path.name, [name for name in names if not name.startswith(".")])


def _prefix(flag: str) -> str:
    return f"{flag}: " if flag else ""
