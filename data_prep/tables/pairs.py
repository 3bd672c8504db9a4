"""Read the rows of a table as pairs of an image file and captions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bimodal_cl.cli.progress import note

from ..file_names import FileFinder
from ..items import BadItem, Item
from .columns import TableOptions
from .rows import Table
from .split_column import SPLIT_COLUMN


@dataclass(frozen=True)
class Pair:
    """A usable row of a table.

    Args:
        where: file and line, for messages.
        path: the image file; it may be missing.
        captions: the cells of all caption columns.
        split: the cell of the column ``split``; None if the table has no such column.
    """

    where: str
    path: Path
    captions: list[str]
    split: str | None = None


def read_pairs(path: Path, options: TableOptions, files: FileFinder, split: str = "") -> Iterator[Pair | BadItem]:
    """Yield the rows of a table; note which columns were guessed and which captions are empty.

    Args:
        path: the table.
        options: the table's format and the wanted columns.
        files: finds the images.
        split: name of the split, put before a row's place in messages.

    Raises:
        UserError: the table cannot be read, or a quotation mark swallows rows.
    """
    table = Table(path, options, files)
    if table.choice.guessed:
        note(f"{path.name}: {table.choice.guessed}")
    split_column = table.columns.index(SPLIT_COLUMN) if table.columns.count(SPLIT_COLUMN) == 1 else None
    for row in table.rows():
        where = f"{split} {path.name}, line {row.line}".strip()
        name = "" if row.fault else row.cells[table.choice.image].strip()
        fault = row.fault or _fault_of_path(name)
        if fault:
            yield BadItem(where, fault)
            continue
        captions = [row.cells[column] for column in table.choice.captions]
        if not all(caption.strip() for caption in captions):
            note(f"{where}: empty caption")
        yield Pair(where, files.locate(name), captions, None if split_column is None else row.cells[split_column])
    if table.joined:
        note(table.joined_note())


def make_item(name: str, row: Pair) -> Item:
    """Return a row as an item whose messages name its line."""
    return Item(name, row.path, tuple(row.captions), where=f"{row.where}: {row.path}")


def _fault_of_path(name: str) -> str:
    """Return why a cell cannot be the path of an image, or ""."""
    if not name:
        return "no image path"
    return f"{name} is a URL, not a file; img2dataset downloads images" if "://" in name else ""
