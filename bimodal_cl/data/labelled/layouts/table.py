"""Open a CSV or TSV table with a column of image paths and one of labels."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from bimodal_cl.data.labelled.class_names import NameList, name_warnings
from bimodal_cl.data.labelled.images import ImageFiles, LabelledImages
from bimodal_cl.data.labelled.layouts.columns import (
    IMAGE_NAMES,
    LABEL_NAMES,
    ColumnOptions,
    choose_column,
    index_labels,
    split_labels,
)
from bimodal_cl.data.labelled.layouts.files_beside import read_names_beside, read_templates
from bimodal_cl.errors import NoSuchSplit, UserError, did_you_mean
from bimodal_cl.files.text_files import NotText, read_text

TABLES = (".csv", ".tsv")
SPLIT_COLUMN = "split"
_SEPARATORS = ",\t;|"


def open_table(path: Path, name: str, split: str, options: ColumnOptions, given: NameList | None) -> LabelledImages:
    """Open the images that a table lists; its first row names the columns.

    Where there is a column ``split``, its rows of the wanted split are taken.

    Args:
        path: the table.
        name: of the data set.
        split: name of the part.
        options: the columns, and the folder of relative paths.
        given: class names; None: those of ``classnames.txt`` beside the table, else the labels themselves.

    Raises:
        NoSuchSplit: the column ``split`` does not have the split.
        UserError: the table cannot be read or lacks a column, a row has no image file, or a label is no class.
    """
    header, rows = _read_rows(path)
    image = header.index(choose_column(header, options.image, IMAGE_NAMES, "--image-column", str(path)))
    label = header.index(choose_column(header, options.label, LABEL_NAMES, "--label-column", str(path)))
    rows = _of_split(path, header, rows, split)
    root = options.folder(path.parent)
    paths = [root / cells[image].strip() for _, cells in rows]
    _refuse_missing_files(path, rows, paths, image)
    values: list[str | list[str]] = [
        cells[label].strip() if options.separator is None else split_labels(cells[label], options.separator)
        for _, cells in rows
    ]
    listed = given or read_names_beside([path.parent])
    names = None if listed is None else listed.names
    found = index_labels(values, names, lambda row: f"{path}, line {rows[row][0]}")
    return LabelledImages(
        name,
        found.classnames,
        read_templates([path.parent]),
        found.labels,
        ImageFiles(paths),
        notes=found.notes if names is None else name_warnings(names),
        class_of_label=found.class_of_label,
    )


def has_split_column(path: Path) -> bool:
    """Return whether a table tells the splits of its rows.

    Raises:
        UserError: the table cannot be read, or has several such columns.
    """
    return _split_place(path, _read_rows(path)[0]) is not None


def _split_place(path: Path, header: list[str]) -> int | None:
    if header.count(SPLIT_COLUMN) > 1:
        raise UserError(f"{path}: {header.count(SPLIT_COLUMN)} columns are called '{SPLIT_COLUMN}'")
    return header.index(SPLIT_COLUMN) if SPLIT_COLUMN in header else None


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header, and every row with the line on which it ends."""
    try:
        text = read_text(path)
    except (OSError, NotText) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    first = text.split("\n", 1)[0]
    separator = "\t" if path.suffix.lower() == ".tsv" else max(_SEPARATORS, key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True, skipinitialspace=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from None
    if not rows:
        raise UserError(f"{path}: holds no row below its header")
    for line, cells in rows:
        if len(cells) != len(header):
            raise UserError(f"{path}, line {line}: {len(cells)} columns, but the header has {len(header)}")
    return header, rows


def _of_split(
    path: Path, header: list[str], rows: list[tuple[int, list[str]]], split: str
) -> list[tuple[int, list[str]]]:
    place = _split_place(path, header)
    if place is None:
        return rows
    found = [(line, cells) for line, cells in rows if cells[place].strip() == split]
    if not found:
        there = dict.fromkeys(cells[place].strip() for _, cells in rows)
        raise NoSuchSplit(f"--split {split}: not in column '{SPLIT_COLUMN}' of {path}{did_you_mean(split, there)}")
    return found


def _refuse_missing_files(path: Path, rows: list[tuple[int, list[str]]], paths: list[Path], image: int) -> None:
    missing = [row for row, file in enumerate(paths) if not rows[row][1][image].strip() or not file.is_file()]
    if missing:
        line, cells = rows[missing[0]]
        what = f"no such image file: {paths[missing[0]]}" if cells[image].strip() else "no image path"
        more = f" ({len(missing):,} of {len(rows):,} rows have none; see --root)" if len(missing) > 1 else ""
        raise UserError(f"{path}, line {line}: {what}{more}")
