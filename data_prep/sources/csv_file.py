"""A CSV or TSV file with a column of image paths and one of captions; rows of one image become its captions."""

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
A cell is text as it stands: NA, null and 007 are captions. A row with another number of columns than the header,
without an image path or with a quotation mark inside a quoted field is skipped and named by its line; commas in an
unquoted last column are part of the caption where spaces show them to be punctuation. A quotation mark that swallows
rows ends the run (--quoting none). A line 'sep=;' before the header is read. Where there is no such file, backslashes
in a path are folders, C:\...\ stands for --root, and accented letters may be one code point or two; one image under
several spellings is one image with the captions of all of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the source's own flags."""
    parser.epilog = RULES
    parser.add_argument(
        "--csv", type=Path, required=True, metavar="FILE", help="the table; its first row names columns"
    )
    parser.add_argument(
        "--image-column",
        default=None,
        metavar="NAME",
        help="column with the image's path; None: image, else the only one of file_name, filepath, path, ...",
    )
    parser.add_argument(
        "--caption-column",
        default=None,
        metavar="NAME[,NAME...]",
        help="columns with captions; None: caption, else the only one of text, title, ..., else caption_0, ...",
    )
    parser.add_argument(
        "--separator",
        choices=("detect", *SEPARATORS),
        default="detect",
        help="detect: as a line 'sep=' says, else the one that makes the first row hold both columns",
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
        help="names of all columns of a file whose first row is not a header, such as caption,image",
    )
    parser.add_argument("--encoding", default="utf-8-sig", help="of the file")
    parser.add_argument("--root", type=Path, default=None, help="folder that paths start from; None: the file's own")


def read(args: argparse.Namespace) -> SourcePlan:
    """Plan the one split: images in their order of first appearance, each with the captions of all its rows.

    The table is read at once, since rows of one image need not stand together.

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
            f"{args.csv.name}: rows of {', '.join(parts)} by column '{SPLIT_COLUMN}' go into one set: "
            "'bimodal-prep write hf' makes a folder of each"
        )
    items = (make_item(name_without_ending(files.root, path), row) for path, row in images.items())
    return SourcePlan([Split("", chain(bad, items), len(bad) + len(images))])
