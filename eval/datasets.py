"""Check the place and split of evaluation data, choose its columns, and name the data set."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bimodal_cl.cli.parser import Parser
from bimodal_cl.data.labelled.layouts.hf import HUB, PARQUET
from bimodal_cl.data.labelled.layouts.table import TABLES
from bimodal_cl.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from bimodal_cl.data.labelled.layouts.columns import ColumnOptions

SPLITS = ("train", "val", "valid", "validation", "test")
_FILES = (*TABLES, PARQUET)


def require_folder(path: Path, flag: str = "--data") -> None:
    """Refuse a folder that does not exist, and name the nearest existing one.

    Raises:
        UserError: it does not exist, or is a file.
    """
    if path.is_dir():
        return
    if path.exists():
        raise UserError(f"{flag} {path}: is a file; name the folder")
    existing = path.parent
    while not existing.is_dir():
        existing = existing.parent
    missing = path.relative_to(existing).parts[0] if existing != Path() else path.parts[0]
    near = did_you_mean(missing, [each.name for each in existing.iterdir() if each.is_dir()])
    raise UserError(f"{flag} {path}: no '{missing}' in {existing.resolve() if existing == Path() else existing}{near}")


def require_file(given: str, flag: str, names: Sequence[str] = ()) -> None:
    """Refuse a file that does not exist.

    Args:
        given: its path.
        flag: the flag that names it, for the message.
        names: what could have been meant instead of a file.

    Raises:
        UserError: there is no such file; the message names the nearest file or name.
    """
    path = Path(given)
    if path.is_file():
        return
    beside = [each.name for each in path.parent.iterdir() if each.is_file()] if path.parent.is_dir() else []
    raise UserError(f"{flag} {given}: no such file{did_you_mean(path.name, [*names, *beside])}")


def require_split(path: Path, split: str) -> None:
    """Refuse a missing split if there are other splits, whose folders would be read as classes.

    Raises:
        UserError: there are other splits but not this one.
    """
    there = [each.name for each in path.iterdir() if each.is_dir() and not each.name.startswith(".")]
    # "train" can also be a class of vehicles, so folders count as splits only if all are named after one.
    if there and split not in there and all(name.lower() in SPLITS for name in there):
        raise UserError(f"--split {split}: not in {path}{did_you_mean(split, there)}")


def require_labelled(given: str, split: str) -> None:
    """Refuse labelled images that do not exist: a folder, a file, or a data set on the hub (``hf:NAME``).

    Raises:
        UserError: there is no such folder or file, or the folder has other splits but not this one.
    """
    path = Path(given)
    if given.startswith(HUB) or path.is_file():
        return
    if path.suffix.lower() in _FILES and path.parent.is_dir() and not path.exists():
        near = [each.name for each in path.parent.iterdir() if each.suffix.lower() in _FILES]
        raise UserError(f"--data {path}: no such file{did_you_mean(path.name, near)}")
    require_folder(path)
    require_split(path, split)


def add_column_arguments(parser: Parser) -> None:
    """Add the flags that name the columns of tables and Hugging Face data sets."""
    parser.add_argument(
        "--image-column",
        metavar="NAME",
        default=None,
        help="column of images or image paths (default: the only one of the type Image, else 'image', else the only "
        "one of a usual name)",
    )
    parser.add_argument(
        "--label-column",
        metavar="NAME",
        default=None,
        help="column of labels (default: the only one of the type ClassLabel, else 'label', else the only one of a "
        "usual name)",
    )
    parser.add_argument(
        "--label-separator",
        metavar="TEXT",
        default=None,
        help="text between the labels of an image that may have several (default: each text is one label)",
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        type=Path,
        default=None,
        help="folder that relative image paths of a table or Hugging Face data set start from (default: the data's)",
    )


def column_options(arguments: argparse.Namespace) -> ColumnOptions:
    """Return the flags of :func:`add_column_arguments`."""
    from bimodal_cl.data.labelled.layouts.columns import ColumnOptions

    return ColumnOptions(
        arguments.image_column, arguments.label_column, arguments.label_separator or None, arguments.root
    )


def dataset_name(path: Path) -> str:
    """Return a data set's name: the folder's, with the parent's in front where the folder is named after a split."""
    resolved = path.resolve()
    if resolved.name.lower() in SPLITS and resolved.parent.name:
        return f"{resolved.parent.name.removeprefix('wds_')}_{resolved.name}"
    return resolved.name or "data"


def require_classes(classnames: Sequence[str], path: str | Path) -> None:
    """Refuse data with a single class name, on which every model scores 100 %.

    Raises:
        UserError: there are fewer than two.
    """
    if len(set(classnames)) < 2:
        raise UserError(f"--data {path}: needs at least two classes, found only {sorted(set(classnames))}")
