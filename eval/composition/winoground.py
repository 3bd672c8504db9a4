"""Read Winoground's format: two images and two captions a row, in ``examples.jsonl``, parquet or a saved data set."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bimodal_cl.data.labelled.layouts.hf import is_hf, load_rows
from bimodal_cl.errors import UserError, did_you_mean, one_line
from bimodal_cl.files.text_files import NotText, read_text

from .examples import Example, ImageFile, StoredImage, find_image, image_folder, require_texts

CAPTIONS, IMAGES = ("caption_0", "caption_1"), ("image_0", "image_1")
_LINES = "examples.jsonl"
_SUBSET = "winoground"


@dataclass(frozen=True)
class RowImage:
    """An image in a row of a data set.

    Attributes:
        rows: with this column alone, of type ``Image(decode=False)``: a row is read as a whole.
        row: its number.
        column: the column's name.
    """

    rows: Any
    row: int
    column: str

    @property
    def name(self) -> str:
        """Return the stored file name, else the place."""
        path = self.rows[self.row][self.column]["path"]
        return Path(path).name if path else f"row {self.row}, {self.column}"

    def read(self) -> bytes:
        """Return the stored bytes."""
        return self.rows[self.row][self.column]["bytes"]


def is_winoground(folder: Path, split: str) -> bool:
    """Return whether a folder holds rows: a file of lines, a saved data set, or parquet files."""
    return _find_lines(folder) is not None or is_hf(folder, split)


def read_winoground(folder: Path, split: str, images: Path | None) -> list[Example]:
    """Read all rows of a folder.

    Args:
        folder: of ``examples.jsonl`` (or ``data/`` with it), of parquet files, or of a saved data set.
        split: of a saved data set or of parquet files.
        images: the folder of images that rows name; None: ``images/`` or ``data/images/`` in ``folder``, else itself.

    Raises:
        UserError: there is no such split, a row is not in the format, a caption is empty, or an image is missing; the
            message names the row.
    """
    lines = _find_lines(folder)
    pictures = image_folder(images, folder / "images", folder / "data" / "images", folder)
    if lines is not None:
        examples = [_from_line(entry, where, pictures) for where, entry in _read_lines(lines)]
    else:
        examples = _from_rows(load_rows(str(folder), split), folder, pictures)
    if not examples:
        raise UserError(f"{folder}: holds no example")
    return examples


def _find_lines(folder: Path) -> Path | None:
    return next((each / _LINES for each in (folder, folder / "data") if (each / _LINES).is_file()), None)


def _from_line(entry: Any, where: str, pictures: Path) -> Example:
    captions = require_texts(entry, CAPTIONS, where)
    images = [find_image(pictures, name, where) for name in require_texts(entry, IMAGES, where)]
    return Example(where, str(entry.get("id", where.rpartition(" ")[2])), _SUBSET, tuple(images), tuple(captions))


def _read_lines(path: Path) -> Iterable[tuple[str, Any]]:
    try:
        lines = read_text(path).split("\n")
    except (OSError, NotText) as error:
        raise UserError(f"{path}: not readable as text: {error}") from None
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        if line.strip():
            try:
                yield where, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where}: not JSON: {error}") from None


def _from_rows(rows: Any, folder: Path, pictures: Path) -> list[Example]:
    from datasets import Image

    for column in (*CAPTIONS, *IMAGES):
        if column not in rows.column_names:
            raise UserError(f"{folder}: no column '{column}'{did_you_mean(column, rows.column_names)}")
    try:
        for column in IMAGES:
            rows = rows.cast_column(column, Image(decode=False))
    except Exception as error:  # of the readers: the column holds something else
        raise UserError(f"{folder}: column '{column}' holds no images: {one_line(error)}") from None
    columns = {column: rows.select_columns(column) for column in IMAGES}
    wanted = [column for column in rows.column_names if column in ("id", *CAPTIONS, *IMAGES)]
    examples = []
    for number, entry in enumerate(rows.select_columns(wanted)):
        where = f"{folder}, row {number}"
        captions = require_texts(entry, CAPTIONS, where)
        in_rows = [RowImage(columns[name], number, name) for name in IMAGES]
        images = tuple(_find_stored(image, entry[image.column], pictures, where) for image in in_rows)
        examples.append(Example(where, str(entry.get("id", number)), _SUBSET, images, tuple(captions)))
    return examples


def _find_stored(image: RowImage, stored: Any, pictures: Path, where: str) -> StoredImage:
    """Return the image of a row, given what its column holds: it, or the file that the row names."""
    if stored is None or (stored["bytes"] is None and not stored["path"]):
        raise UserError(f"{where}: '{image.column}' is empty")
    if stored["bytes"] is not None:
        return image
    path = Path(stored["path"])
    return ImageFile(path) if path.is_file() else find_image(pictures, path.name, where)
