"""A CSV or TSV file with a column of image paths and one of captions; rows of one image become its captions."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from bimodal_cl.errors import UserError, did_you_mean

from ..input_paths import require_file, require_folder
from ..items import BadItem, Item, SourcePlan, Split

SUMMARY = "CSV or TSV with a column of image paths and one of captions: shards in TO itself"
SEPARATORS = {"comma": ",", "tab": "\t", "semicolon": ";", "pipe": "|"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the source's own flags."""
    parser.add_argument(
        "--csv", type=Path, required=True, metavar="FILE", help="the table; its first row names columns"
    )
    parser.add_argument("--image-column", default="image", help="column with the image's path")
    parser.add_argument("--caption-column", default="caption", help="column with the caption")
    parser.add_argument(
        "--separator",
        choices=("detect", *SEPARATORS),
        default="detect",
        help="detect: the one that makes the first row hold both columns",
    )
    parser.add_argument(
        "--quoting",
        choices=("standard", "none"),
        default="standard",
        help="none: quotation marks are ordinary characters, as in many TSV files",
    )
    parser.add_argument("--encoding", default="utf-8-sig", help="of the file")
    parser.add_argument("--root", type=Path, default=None, help="folder that paths start from; None: the file's own")


def read(args: argparse.Namespace) -> SourcePlan:
    """Plan the one split: images in their order of first appearance, each with the captions of all its rows.

    The table is read at once, since rows of one image need not stand together.

    Raises:
        UserError: missing file or column, an unreadable line, or an unknown encoding.
    """
    require_file(args.csv, "--csv")
    root = args.csv.parent if args.root is None else require_folder(args.root, "--root")
    captions: dict[str, list[str]] = {}
    bad: list[BadItem] = []
    try:
        with args.csv.open(encoding=args.encoding, newline="") as file:
            for where, image, caption in _rows(file, args):
                if not image or caption is None:
                    bad.append(BadItem(where, "no image path" if not image else "too few columns"))
                else:
                    captions.setdefault(image, []).append(caption)
    except OSError as error:
        raise UserError(f"cannot read {args.csv}: {error.strerror}") from None
    except (UnicodeError, LookupError) as error:
        raise UserError(f"{args.csv} is not {args.encoding} ({error}); give --encoding") from None
    items: list[Item | BadItem] = [*bad, *(_item(root, image, texts) for image, texts in captions.items())]
    return SourcePlan([Split("", items, len(items))])


def _item(root: Path, image: str, captions: list[str]) -> Item:
    path = PurePosixPath(image)
    return Item(str(path.parent / path.stem), root / image, tuple(captions))


def _rows(file: Iterator[str], args: argparse.Namespace) -> Iterator[tuple[str, str, str | None]]:
    """Where it stands, image path and caption of every row; the caption is None in a row that is too short."""
    header = next(file, "")
    separator = find_separator(header, args)
    dialect = _PlainQuotes if args.quoting == "none" else csv.excel
    columns = _columns(header, separator)
    image_column, caption_column = columns.index(args.image_column), columns.index(args.caption_column)
    table = csv.reader(file, dialect, delimiter=separator, skipinitialspace=separator == "|")
    try:
        for row in table:
            if not row:
                continue
            where = f"{args.csv.name}, line {table.line_num + 1}"
            image = row[image_column].strip() if image_column < len(row) else ""
            yield where, image, row[caption_column] if caption_column < len(row) else None
    except csv.Error as error:
        hint = "; try --quoting none" if args.quoting == "standard" else ""
        raise UserError(f"{args.csv}, line {table.line_num + 1}: {error}{hint}") from None


class _PlainQuotes(csv.excel):
    quoting = csv.QUOTE_NONE


def find_separator(header: str, args: argparse.Namespace) -> str:
    """Return the separator: as told, or the one that makes the first row hold both columns.

    Raises:
        UserError: with it, a column is missing; names the columns there are.
    """
    wanted = (args.image_column, args.caption_column)
    candidates = SEPARATORS.values() if args.separator == "detect" else [SEPARATORS[args.separator]]
    for separator in candidates:
        if set(wanted) <= set(_columns(header, separator)):
            return separator
    found = max((_columns(header, separator) for separator in candidates), key=len)
    missing = next(name for name in wanted if name not in found)
    flag = "--image-column" if missing == args.image_column else "--caption-column"
    raise UserError(f"{args.csv} has no column '{missing}' ({flag}){did_you_mean(missing, found)}")


def _columns(header: str, separator: str) -> list[str]:
    return [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
