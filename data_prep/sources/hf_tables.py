"""Tables of a Hugging Face data set, read as text: ``datasets`` has pandas read them, to which NA is no caption.

``datasets`` still says which files belong to which split. Tables that are files here are read by our own reader, which
names rows by line; of those on the hub the cells are kept as text.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.progress import note

from ..file_names import FileFinder
from ..items import BadItem, Item, SourcePlan, Split
from ..repeated_images import join_files
from ..table_columns import TableOptions
from .csv_file import make_item, read_pairs

METADATA = "metadata.csv"  # of a folder of images


def find_tables(folder: str, config: str | None) -> dict[str, list[Path]]:
    """Return the tables of a local data set by split; none where its rows are elsewhere.

    Args:
        folder: the data set.
        config: of its configurations.
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
    """Return the arguments of ``load_dataset`` that keep the cells of tables on the hub text: none for other files.

    Args:
        name: of the data set.
        config: of its configurations.
        revision: of its repository.
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
    """Plan the splits of tables on this machine: rows of one image are joined, as in other files of a data set.

    Args:
        args: the parsed flags of the source ``hf``.
        tables: the files of each split; paths in a table start from its folder.
        single: write the one split to the target folder itself.

    Raises:
        UserError: no such split, or a table that cannot be read.
    """
    if args.split is None:
        items = {split: _read(args, "" if single else split, paths) for split, paths in tables.items()}
        return SourcePlan([_join("" if single else split, each) for split, each in items.items()])
    from datasets import ReadInstruction

    wanted = [split for split in tables if re.search(rf"(?<!\w){re.escape(split)}(?!\w)", args.split)]
    if not wanted:
        raise UserError(f"--dataset {args.dataset} has no split '{args.split}'{did_you_mean(args.split, tables)}")
    items = {split: _read(args, args.split, tables[split]) for split in wanted}
    parts = ReadInstruction.from_spec(args.split).to_absolute({split: len(each) for split, each in items.items()})
    chosen = [item for part in parts for item in items[part.splitname][part.from_ : part.to]]
    return SourcePlan([_join("", chosen)])


def _join(name: str, items: list[Item | BadItem]) -> Split:
    joined: Counter[str] = Counter()
    return Split(name, join_files(items, joined), len(items), joined=joined)


def _read(args: argparse.Namespace, split: str, paths: Sequence[Path]) -> list[Item | BadItem]:
    items: list[Item | BadItem] = []
    options = TableOptions(args.image_column, args.caption_column, command="bimodal-prep write csv")
    for path in paths:
        for row in read_pairs(path, options, FileFinder(path.parent), split):
            items.append(row if isinstance(row, BadItem) else make_item(f"{len(items):09d}", row))
    return items


def _data_files(builder: Any) -> Mapping[Any, Any]:
    return builder.config.data_files or {}
