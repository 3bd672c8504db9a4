"""The header of a table: its separator, and which columns hold the images and the captions."""

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
# What people call the columns, compared without case, spaces and underscores; the first is the default.
IMAGE_NAMES = (
    "image",
    *("file_name", "image_path", "image_file", "image_name", "image_file_name", "image_file_path", "file_path"),
    *("path", "file", "img", "img_path", "img_name", "img_file", "picture", "photo"),
)
CAPTION_NAMES = (
    "caption",
    *("captions", "text", "title", "sentence", "sentences", "description", "comment", "caption_text", "image_caption"),
)
URLS = "images are URLs in it: download them with img2dataset, then 'bimodal-prep write img2dataset DIR'"
_SEPARATOR_LINE = re.compile(r'"?sep=(\\t|.)"?[,;\s]*', re.IGNORECASE)  # Excel's, before the header


@dataclass(frozen=True)
class TableOptions:
    """How a table is written and which columns are wanted.

    Args:
        image_column: its name; None for the usual ones.
        caption_column: a name, or several with commas between; None for the usual ones.
        separator: a name of ``SEPARATORS``, or "detect".
        quoting: "standard", or "none" where quotation marks are ordinary characters.
        encoding: of the file.
        columns: names of the columns, with commas between, of a file whose first row is not a header; or None.
        command: a command that takes the flags that messages name, or "" where this one does.
    """

    image_column: str | None = None
    caption_column: str | None = None
    separator: str = "detect"
    quoting: str = "standard"
    encoding: str = "utf-8-sig"
    columns: str | None = None
    command: str = ""

    def advise(self, flags: str) -> str:
        """Return ``give FLAGS``, with the command that takes them."""
        return f"use '{self.command}' with {flags}" if self.command else f"give {flags}"


@dataclass(frozen=True)
class Choice:
    """Positions of the image's column and of the captions', and the names of those that nobody named exactly."""

    image: int
    captions: tuple[int, ...]
    guessed: str = ""


@dataclass(frozen=True)
class Header:
    """What stands before the rows; ``first_row`` is a line that was read and is a row already, or None."""

    columns: list[str]
    separator: str
    choice: Choice
    first_row: str | None = None


def find_header(path: Path, lines: Iterator[str], options: TableOptions) -> Header:
    """Read a table up to its first row.

    The separator is the one that was told, by the flag or by a line ``sep=;``, else the one by which the header holds
    the columns.

    Args:
        path: for messages.
        lines: of the file.
        options: which columns are wanted.

    Raises:
        UserError: a column is missing, or occurs twice, or cannot be guessed.
    """
    line = next((line for line in lines if line.strip()), "")
    told = None
    mark = _SEPARATOR_LINE.fullmatch(line)
    if mark is not None:
        told = "\t" if mark[1] == "\\t" else mark[1]
        line = next((line for line in lines if line.strip()), "")
    if options.separator != "detect":
        told = SEPARATORS[options.separator]
    candidates = [told] if told else list(SEPARATORS.values())
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
            f"{options.advise('--columns image,caption')}, or whatever its columns are in their order"
        )
    raise UserError(max(problems, key=lambda problem: problem[0])[1])


def choose_columns(columns: list[str], options: TableOptions, where: str) -> Choice | str:
    """Return which columns hold images and captions, or the message that says why that cannot be told."""
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
    """Whether a cell is the path of an image by its ending, or a URL, and not a text that mentions one."""
    name = cell.strip().strip('"')
    if not name or any(character.isspace() for character in name):
        return False
    return "://" in name or PurePosixPath(name.partition("#")[0]).suffix.lower() in IMAGE_EXTENSIONS


def _choose(columns: list[str], wanted: str | None, usual: tuple[str, ...], flag: str, where: str) -> int | str:
    """The position of a column, or what is wrong."""
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
    # Commas come last: captions hold them, and what stands first in the order is what the first row is split by.
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
    """Whether a column is called as those of URLs are."""
    return _plain(column) in ("url", "imageurl", "urls", "imgurl")


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name.casefold())
