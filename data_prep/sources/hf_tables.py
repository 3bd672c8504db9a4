"""Read CSV tables of a Hugging Face data set as text.

``datasets`` reads tables with pandas, which turns captions such as "NA" into missing values. Here ``datasets`` only
says which files belong to which split. Local tables are read by our own reader, which reports rows by line; for tables
on the hub, pandas is told to keep all cells as text.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from bimodal_cl.cli.progress import note
from bimodal_cl.errors import UserError, did_you_mean

from ..file_names import FileFinder
from ..items import BadItem, Item, SourcePlan, Split
from ..tables.columns import TableOptions
from ..tables.pairs import make_item, read_pairs
from ..tables.split_column import group_by_split
from .repeated_images import make_split

_Row: TypeAlias = tuple[Item | BadItem, str | None]  # and its split, None if no column names it
METADATA = "metadata.csv"  # the table of a folder of images


def find_tables(folder: str, config: str | None) -> dict[str, list[Path]]:
    """Return the tables of a local data set by split; empty if its rows are not in tables.

    Args:
        folder: the data set.
        config: its configuration; None for the default.
    """
    from datasets import load_dataset_builder
    from datasets.packaged_modules.csv.csv import Csv
    from datasets.packaged_modules.folder_based_builder.folder_based_builder import FolderBasedBuilder

    builder = load_dataset_builder(folder, config)
    files = {str(split): [Path(str(name)) for name in names] for split, names in _data_files(builder).items()}
    if isinstance(builder, FolderBasedBuilder):
        files = {split: [path for path in paths if path.name == METADATA] for split, paths in files.items()}
        if any(files.values()):
            for split in [split for split, paths in files.items() if not paths]:
                note(f"{folder}: split '{split}' has no {METADATA} and is left out")
                del files[split]
    elif not isinstance(builder, Csv):
        return {}
    return files if all(paths and all(map(Path.is_file, paths)) for paths in files.values()) else {}


def text_options(name: str, config: str | None, revision: str | None) -> dict[str, Any]:
    """Return the arguments with which ``load_dataset`` keeps the cells of tables as text; empty if there are no tables.

    Args:
        name: name of the data set.
        config: its configuration; None for the default.
        revision: revision of its repository; None for the newest.
    """
    from datasets import Features, Value, load_dataset_builder
    from datasets.packaged_modules.csv.csv import Csv

    builder = load_dataset_builder(name, config, revision=revision)
    if not isinstance(builder, Csv):
        if any(str(path).endswith(f"/{METADATA}") for paths in _data_files(builder).values() for path in paths):
            note(f"--dataset {name}: NA, null and None in its {METADATA} are missing captions, not texts")
        return {}
    as_text = {"keep_default_na": False, "na_filter": False}
    builder = load_dataset_builder(name, config, revision=revision, **as_text)
    first = next(iter(builder.as_streaming_dataset().values()))
    row: dict[str, Any] = next(iter(first), {})
    return {**as_text, "features": Features({column: Value("string") for column in row})} if row else as_text


def plan_tables(args: argparse.Namespace, tables: Mapping[str, Sequence[Path]], single: bool = False) -> SourcePlan:
    """Plan the splits of local tables; rows of one image are joined.

    Args:
        args: the parsed flags of the source ``hf``.
        tables: the files of each split; relative paths in a table start from its folder.
        single: write the only split to the target folder itself.

    Raises:
        UserError: no such split, or a table that cannot be read.
    """
    if args.split is None:
        above = "" if single or len(tables) == 1 else "{}"
        rows = {split: _read(args, "" if single else split, paths) for split, paths in tables.items()}
        plans = (_plan(args, "" if single else split, above.format(split), each) for split, each in rows.items())
        return SourcePlan([part for plan in plans for part in plan])
    require_named_splits(args, tables)
    rows = {split: _read(args, args.split, tables[split]) for split in tables if _names(args.split, split)}
    parts = pick_rows(args.split, {split: len(each) for split, each in rows.items()})
    return SourcePlan(_plan(args, "", "", [row for name, first, last in parts for row in rows[name][first:last]]))


def require_named_splits(args: argparse.Namespace, splits: Collection[str]) -> None:
    """Raise ``UserError`` if ``--split`` names none of the splits.

    Args:
        args: the parsed flags of the source ``hf``.
        splits: the names of the splits.
    """
    if not any(_names(args.split, split) for split in splits):
        raise UserError(f"--dataset {args.dataset} has no split '{args.split}'{did_you_mean(args.split, splits)}")


def pick_rows(wanted: str, sizes: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """Resolve a split such as ``train[:10%]+test`` to (name of a split, first row, last row + 1).

    Args:
        wanted: a split in the notation of ``datasets``.
        sizes: the number of rows of each split.
    """
    from datasets import ReadInstruction

    return [(part.splitname, part.from_, part.to) for part in ReadInstruction.from_spec(wanted).to_absolute(sizes)]


def _names(wanted: str, split: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(split)}(?!\w)", wanted) is not None


def _plan(args: argparse.Namespace, name: str, above: str, rows: list[_Row]) -> list[Split]:
    """Plan one split of tables; several, if a column of the rows names them.

    Args:
        args: the parsed flags.
        name: folder to write the split to.
        above: parent of the folders, if a column names several splits.
        rows: all rows.
    """
    known = [number for number, (_, split) in enumerate(rows) if split is not None]
    parts = group_by_split(args.dataset, [rows[number][1] for number in known])
    if len(parts) < 2:
        return [make_split(name, [item for item, _ in rows], len(rows))]
    bad: list[Item | BadItem] = [item for item, split in rows if split is None]
    splits = []
    for part, numbers in parts.items():
        items = [*bad, *(rows[known[n]][0] for n in numbers)]
        splits.append(make_split(f"{above}/{part}" if above else part, items, len(items)))
        bad = []
    return splits


def _read(args: argparse.Namespace, split: str, paths: Sequence[Path]) -> list[_Row]:
    rows: list[_Row] = []
    options = TableOptions(args.image_column, args.caption_column, command="bimodal-prep write csv")
    for path in paths:
        for row in read_pairs(path, options, FileFinder(path.parent), split):
            if isinstance(row, BadItem):
                rows.append((row, None))
            else:
                rows.append((make_item(f"{len(rows):09d}", row), row.split))
    return rows


def _data_files(builder: Any) -> Mapping[Any, Any]:
    return builder.config.data_files or {}
