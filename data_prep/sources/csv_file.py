"""Read a CSV or TSV file with image paths and captions; all rows of one image become its captions."""

from __future__ import annotations

import argparse
from itertools import chain
from pathlib import Path

from bimodal_cl.cli.progress import note

from ..file_names import FileFinder, name_without_ending
from ..input_paths import require_file, require_folder
from ..items import BadItem, SourcePlan, Split
from ..tables.columns import SEPARATORS, TableOptions
from ..tables.pairs import Pair, make_item, read_pairs
from ..tables.split_column import SPLIT_COLUMN, rows_of_splits

SUMMARY = "CSV or TSV with a column of image paths and one of captions: shards in TO itself"
RULES = r"""
Cells are never converted: NA, null and 007 are captions. A row is skipped, and reported by its line, if its number of
columns differs from the header's, if it has no image path, or if a quoted field has a quotation mark inside. Commas in
an unquoted last column belong to the caption if they are followed by spaces, as punctuation is. A quotation mark that
swallows rows ends the run (see --quoting none). Excel's line 'sep=;' before the header is understood. If a path does
not exist, backslashes separate folders, C:\...\ stands for --root, and accented letters match in composed and
decomposed form (NFC, NFD). Spellings that lead to the same file are one image, with the captions of all of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the source's own flags."""
    parser.epilog = RULES
    parser.add_argument(
        "--csv", type=Path, required=True, metavar="FILE", help="the table; its first row names the columns"
    )
    parser.add_argument(
        "--image-column",
        default=None,
        metavar="NAME",
        help="column of image paths (default: 'image', else the only one of file_name, filepath, path, ...)",
    )
    parser.add_argument(
        "--caption-column",
        default=None,
        metavar="NAME[,NAME...]",
        help="columns of captions (default: 'caption', else the only one of text, title, ..., else caption_0, ...)",
    )
    parser.add_argument(
        "--separator",
        choices=("detect", *SEPARATORS),
        default="detect",
        help="detect: from a line 'sep=', else the separator that gives the first row both columns",
    )
    parser.add_argument(
        "--quoting",
        choices=("standard", "none"),
        default="standard",
        help="none: quotation marks are ordinary characters, as in many TSV files",
    )
    parser.add_argument(
        "--columns",
        default=None,
        metavar="NAME,NAME...",
        help="names of all columns, such as caption,image, of a file without a header",
    )
    parser.add_argument("--encoding", default="utf-8-sig", help="encoding of the file")
    parser.add_argument(
        "--root", type=Path, default=None, help="folder that relative paths start from (default: the file's folder)"
    )


def read(args: argparse.Namespace) -> SourcePlan:
    """Plan one split: the images in order of first appearance, each with the captions of all its rows.

    The whole table is read first, since rows of one image need not be adjacent.

    Raises:
        UserError: missing file or column, a quotation mark that swallows rows, or an unknown encoding.
    """
    require_file(args.csv, "--csv")
    files = FileFinder(args.csv.parent if args.root is None else require_folder(args.root, "--root"))
    options = TableOptions(
        args.image_column, args.caption_column, args.separator, args.quoting, args.encoding, args.columns
    )
    images: dict[Path, Pair] = {}
    bad: list[BadItem] = []
    splits: dict[str | None, None] = {}
    for row in read_pairs(args.csv, options, files):
        if isinstance(row, BadItem):
            bad.append(row)
            continue
        splits.setdefault(row.split)
        if row.path in images:
            images[row.path].captions.extend(row.captions)
        else:
            images[row.path] = row
    parts = rows_of_splits(splits)
    if len(parts) > 1:
        note(
            f"{args.csv.name}: all splits in column '{SPLIT_COLUMN}' ({', '.join(parts)}) are written to one folder; "
            "'bimodal-prep write hf' writes a folder for each"
        )
    items = (make_item(name_without_ending(files.root, path), row) for path, row in images.items())
    return SourcePlan([Split("", chain(bad, items), len(bad) + len(images))])
