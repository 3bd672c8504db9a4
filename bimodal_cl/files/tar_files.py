"""List the shards of a folder: its tars by their names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bimodal_cl.errors import UserError
from bimodal_cl.files.image_files import describe_endings, ending_of
from bimodal_cl.files.natural_sort import natural_sort_key

SHARD_EXTENSION = ".tar"
COMPRESSED_EXTENSIONS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".zip")


def is_tar(path: Path) -> bool:
    """Return whether a file is a shard by its name; ``._0.tar``, which macOS writes next to ``0.tar``, is not."""
    return path.suffix.lower() == SHARD_EXTENSION and not path.name.startswith(".")


def list_tars(folder: Path) -> list[Path]:
    """List the tars of a folder in natural sort order, or those of its sub-folders if it has none itself.

    Raises:
        UserError: there is none; the message counts what is there instead, by ending.
    """
    tars = _own_tars(folder) or _tars_below(folder)
    if not tars:
        there = Counter(_shard_ending(path.name) for path in folder.iterdir() if path.is_file())
        zipped = sum(there[ending] for ending in COMPRESSED_EXTENSIONS)
        hint = "; shards must be plain tars: unpack them" if zipped else ""
        holds = f": it holds {describe_endings(there)}" if there else ""
        raise UserError(f"no {SHARD_EXTENSION} in {folder}{holds}{hint}")
    return sorted(tars, key=lambda path: natural_sort_key(path.relative_to(folder).as_posix()))


def count_other_shards(folder: Path) -> Counter[str]:
    """Count the files that may be shards but are not in :func:`list_tars`: compressed tars, and tars of sub-folders."""
    found = Counter(_shard_ending(path.name) for path in folder.iterdir() if path.is_file())
    counts = Counter({ending: found[ending] for ending in COMPRESSED_EXTENSIONS if found[ending]})
    below = len(_tars_below(folder)) if _own_tars(folder) else 0
    if below:
        counts[f"{SHARD_EXTENSION} in sub-folders ({folder / '**' / f'*{SHARD_EXTENSION}'})"] = below
    return counts


def _own_tars(folder: Path) -> list[Path]:
    return list(filter(is_tar, folder.iterdir()))


def _tars_below(folder: Path) -> list[Path]:
    paths = filter(is_tar, folder.glob("*/**/*.*"))
    return [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _shard_ending(name: str) -> str:
    return next((ending for ending in COMPRESSED_EXTENSIONS if name.lower().endswith(ending)), ending_of(name))
