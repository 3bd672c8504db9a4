"""Find a table's separator and header, and the columns that hold images and captions."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from textwrap import shorten

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.image_formats import IMAGE_EXTENSIONS

SEPARATORS = {"comma": ",", "tab": "\t", "semicolon": ";", "pipe": "|"}
# Usual names of the columns, compared without case, spaces and underscores; the first is the default.
IMAGE_NAMES = (
    "image",
    *("file_name", "image_path", "image_file", "image_name", "image_file_name", "image_file_path", "file_path"),
    *("path", "file", "img", "img_path", "img_name", "img_file", "picture", "photo"),
)
CAPTION_NAMES = (
    "caption",
    *("captions", "text", "title", "sentence", "sentences", "description", "comment", "caption_text", "image_caption"),
)
URLS = "its images are URLs: download them with img2dataset, then 'bimodal-prep write img2dataset DIR'"
_SEPARATOR_LINE = re.compile(r'"?sep=(\\t|.)"?[,;\s]*', re.IGNORECASE)  # Excel writes it before the header


@dataclass(frozen=True)
class TableOptions:
    """The format of a table, and the wanted columns.

    Args:
        image_column: name of the column; None for the usual names.
        caption_column: one name, or several separated by commas; None for the usual names.
        separator: a name of ``SEPARATORS``, or "detect".
        quoting: "standard", or "none" if quotation marks are ordinary characters.
        encoding: the encoding of the file.
        columns: names of all columns, separated by commas, of a file without a header; else None.
        command: the command that accepts the flags that messages name; "" if it is the one that is running.
    """

    image_column: str | None = None
    caption_column: str | None = None
    separator: str = "detect"
    quoting: str = "standard"
    encoding: str = "utf-8-sig"
    columns: str | None = None
    command: str = ""

    def advise(self, flags: str) -> str:
        """Return ``give FLAGS``, or the same with the command that accepts them."""
        return f"use '{self.command}' with {flags}" if self.command else f"give {flags}"


@dataclass(frozen=True)
class Choice:
    """Positions of the image column and the caption columns; ``guessed`` describes those that no flag named."""

    image: int
    captions: tuple[int, ...]
    guessed: str = ""


@dataclass(frozen=True)
class Header:
    """The header of a table; ``first_row`` is a line that was read and is already a row, or None."""

    columns: list[str]
    separator: str
    choice: Choice
    first_row: str | None = None


def find_header(path: Path, lines: Iterator[str], options: TableOptions) -> Header:
    """Read a table up to its first row.

    The separator comes from the flag or from a line ``sep=;``; else it is the one with which the header holds the
    wanted columns.

    Args:
        path: the file, for messages.
        lines: the lines of the file.
        options: the table's format and the wanted columns.

    Raises:
        UserError: a column is missing, occurs twice, or cannot be guessed.
    """
    line = next((line for line in lines if line.strip()), "")
    given = None
    mark = _SEPARATOR_LINE.fullmatch(line)
    if mark is not None:
        given = "\t" if mark[1] == "\\t" else mark[1]
        line = next((line for line in lines if line.strip()), "")
    if options.separator != "detect":
        given = SEPARATORS[options.separator]
    candidates = [given] if given else list(SEPARATORS.values())
    if options.columns is not None:
        return _read_without_header(path, line, candidates, options)
    parsed = {separator: _split_header(line, separator) for separator in candidates}
    problems: list[tuple[int, str]] = []
    for separator, columns in parsed.items():
        found = choose_columns(columns, options, f"{path}")
        if isinstance(found, Choice):
            return Header(columns, separator, found)
        problems.append((len(columns), found))
    widest = max(parsed.values(), key=len)
    if any(looks_like_image(cell) for cell in widest):
        first = shorten(", ".join(map(repr, widest)), 120)
        if any("://" in cell for cell in widest):
            raise UserError(f"{path} has no header: its first row is {first}; {URLS}")
        raise UserError(
            f"{path} has no header: its first row is {first}; "
            f"{options.advise('--columns image,caption')}, or its columns in their order"
        )
    raise UserError(max(problems, key=lambda problem: problem[0])[1])


def choose_columns(columns: list[str], options: TableOptions, where: str) -> Choice | str:
    """Return which columns hold images and captions, or a message that says why this is unclear."""
    image = _choose(columns, options.image_column, IMAGE_NAMES, "--image-column", where)
    if isinstance(image, str):
        return image
    captions = _choose_captions(columns, options.caption_column, where)
    if isinstance(captions, str):
        return captions
    guessed = []
    if options.image_column is None and columns[image] != IMAGE_NAMES[0]:
        guessed.append(f"images from column '{columns[image]}'")
    if options.caption_column is None and [columns[caption] for caption in captions] != [CAPTION_NAMES[0]]:
        guessed.append(f"captions from {', '.join(repr(columns[caption]) for caption in captions)}")
    return Choice(image, captions, ", ".join(guessed))


def looks_like_image(cell: str) -> bool:
    """Return whether a cell is the path of an image, by its ending, or a URL; a text that mentions one is neither."""
    name = cell.strip().strip('"')
    if not name or any(character.isspace() for character in name):
        return False
    return "://" in name or PurePosixPath(name.partition("#")[0]).suffix.lower() in IMAGE_EXTENSIONS


def _choose(columns: list[str], wanted: str | None, usual: tuple[str, ...], flag: str, where: str) -> int | str:
    """Return the position of a column, or a message that says what is wrong."""
    name = usual[0] if wanted is None else wanted
    if columns.count(name) > 1:
        places = " and ".join(str(n) for n, column in enumerate(columns, 1) if column == name)
        return f"{where} has {columns.count(name)} columns '{name}' ({flag}), number {places}: rename all but one"
    if name in columns:
        return columns.index(name)
    known = set(map(_plain, usual)) if wanted is None else set()
    likely = [n for n, column in enumerate(columns) if _plain(column) in known]
    if len(likely) == 1:
        return likely[0]
    if likely:
        return f"{where} has no column '{name}': is it {' or '.join(repr(columns[n]) for n in likely)}? Give {flag}"
    if wanted is None and flag == "--image-column" and any(map(names_urls, columns)):
        return f"{where} has no column '{name}'; {URLS}"
    return f"{where} has no column '{name}' ({flag}){did_you_mean(name, filter(None, columns))}"


def _choose_captions(columns: list[str], wanted: str | None, where: str) -> tuple[int, ...] | str:
    names: list[str | None] = [wanted]
    if wanted is not None and wanted not in columns and "," in wanted:
        names = [name.strip() for name in wanted.split(",")]
    numbers = [re.fullmatch(r"caption[ _]?([0-9]+)", name, re.IGNORECASE) for name in columns]
    numbered = [(int(number[1]), n) for n, number in enumerate(numbers) if number is not None]
    found = [_choose(columns, name, CAPTION_NAMES, "--caption-column", where) for name in names]
    problem = next((each for each in found if isinstance(each, str)), None)
    if problem is not None:
        return tuple(n for _, n in sorted(numbered)) if wanted is None and numbered else problem
    return tuple(each for each in found if isinstance(each, int))


def _read_without_header(path: Path, line: str, candidates: list[str], options: TableOptions) -> Header:
    assert options.columns is not None
    columns = [name.strip() for name in options.columns.split(",")]
    found = choose_columns(columns, options, "--columns")
    if isinstance(found, str):
        raise UserError(found)
    # The first separator that fits is taken. Commas come last, since captions hold them.
    order = sorted(candidates, key=lambda separator: separator == ",")
    for separator in order:
        if len(_split_header(line, separator)) == len(columns):
            return Header(columns, separator, found, line)
    if len(candidates) == 1:
        return Header(columns, candidates[0], found, line)
    raise UserError(f"{path}: no separator gives its first row the {len(columns)} --columns; give --separator")


def _split_header(line: str, separator: str) -> list[str]:
    cells = [name.strip() for name in next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def names_urls(column: str) -> bool:
    """Return whether the name of a column says that it holds URLs."""
    return _plain(column) in ("url", "imageurl", "urls", "imgurl")


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name.casefold())
