"""Read the rows of a CSV or TSV file, with the line on which each begins and what is wrong with it.

Python's ``csv`` is used, not pandas or pyarrow: they convert ``NA`` and ``007``, and report neither the line on which
a row begins nor the one on which a quotation mark opened.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bimodal_cl.errors import UserError

from ..file_names import FileFinder
from .columns import Choice, TableOptions, find_header, looks_like_image
from .text import TableLines

LONGEST_FIELD = 2**31 - 1  # characters; some captions exceed csv's own limit of 131,072


@dataclass(frozen=True)
class Row:
    """One row.

    Args:
        line: the physical line on which it begins, from 1.
        cells: one text for each column of the header; empty if there is a ``fault``.
        fault: why the row cannot be used, or "".
    """

    line: int
    cells: list[str] = field(default_factory=list)
    fault: str = ""


class Table:
    """A table whose header has been read.

    Args:
        path: the file.
        options: the table's format and the wanted columns.
        files: finds images: a quoted field that contains rows with existing images has swallowed them.

    Raises:
        UserError: the table cannot be read, or lacks a column.
    """

    def __init__(self, path: Path, options: TableOptions, files: FileFinder) -> None:
        self.path = path
        self.joined: list[int] = []  # lines whose last column holds separators without quotation marks
        self._options = options
        self._files = files
        csv.field_size_limit(LONGEST_FIELD)
        self._lines = TableLines(path, options.encoding)
        header = find_header(path, self._lines, options)
        self.separator = header.separator
        self.columns = header.columns
        self.choice: Choice = header.choice
        self._held: list[str] = []
        self._waiting = header.first_row

    def rows(self) -> Iterator[Row]:
        """Yield all rows once; blank lines are not rows.

        Raises:
            UserError: a quotation mark swallows lines, or the file cannot be decoded.
        """
        reader = csv.reader(
            self._feed(),
            delimiter=self.separator,
            quoting=csv.QUOTE_NONE if self._options.quoting == "none" else csv.QUOTE_MINIMAL,
            strict=True,
            skipinitialspace=self.separator != " ",
        )
        while True:
            self._held.clear()
            first = self._lines.number + (0 if self._waiting is not None else 1)
            try:
                cells = next(reader, None)
            except csv.Error:
                yield self._reread_as_plain(first)
                continue
            if cells is None:
                return
            if cells and (len(cells) > 1 or cells[0].strip()):
                if len(self._held) > 1:
                    self._refuse_swallowed_rows(first, cells)
                yield self._fit(first, cells)

    def joined_note(self) -> str:
        """Return a note on the rows of ``joined``."""
        lines = ", ".join(map(str, self.joined[:10])) + (", ..." if len(self.joined) > 10 else "")
        name = self.columns[self.choice.captions[-1]]
        return (
            f"{self.path.name}: {len(self.joined):,} rows have '{self.separator}' without quotation marks in the last "
            f"column, '{name}', where it is taken as part of the caption (line {lines})"
        )

    def _feed(self) -> Iterator[str]:
        """Yield lines to ``csv`` and keep those of the row that is being read in ``_held``."""
        if self._waiting is not None:
            line, self._waiting = self._waiting, None
            yield self._hold(line)
        for line in self._lines:
            yield self._hold(line)

    def _hold(self, line: str) -> str:
        self._held.append(line)
        # csv refuses a space after a closing quotation mark and, in older versions, a NUL character.
        return line.rstrip(" ").replace("\0", "\ufffd") + "\n"

    def _reread_as_plain(self, first: int) -> Row:
        """Return a row that ``csv`` refused; quotation marks are plain characters if it then has all its columns."""
        never_closed = self._lines.ended
        if len(self._held) > 1:
            raise UserError(self._swallowed(first, never_closed))
        if never_closed:
            return Row(first, fault=f"a quotation mark opens and never closes; {self._remedy()}")
        cells = [cell.strip() for cell in self._held[0].split(self.separator)]
        enclosed = any(len(cell) > 1 and cell.startswith('"') and cell.endswith('"') for cell in cells)
        if enclosed or len(cells) != len(self.columns):
            return Row(first, fault=f"a quotation mark inside a field that begins with one; {self._remedy()}")
        return self._fit(first, cells)

    def _fit(self, first: int, cells: list[str]) -> Row:
        wanted = len(self.columns)
        if any("\0" in line for line in self._held):
            return Row(first, fault="it contains a NUL character")
        if len(cells) < wanted:
            return Row(first, fault=f"too few columns ({len(cells)}, the header has {wanted})")
        if any(cell.strip() for cell in cells[wanted:]):
            joined = self._join_last_column()
            if joined is None:
                hint = f"; a caption that holds '{self.separator}' needs quotation marks"
                return Row(first, fault=f"too many columns ({len(cells)}, the header has {wanted}){hint}")
            self.joined.append(first)
            return Row(first, joined)
        return Row(first, cells[:wanted])

    def _join_last_column(self) -> list[str] | None:
        """Return the cells of a row whose last column, a caption, holds separators that are clearly punctuation.

        These have a space next to them, the separators between columns have none, and nothing in the row is quoted. In
        any other case the surplus may be a column that the header lacks; then None is returned.
        """
        pieces = self._held[0].split(self.separator)
        wanted = len(self.columns)
        quoted = self._options.quoting != "none" and any(piece.lstrip().startswith('"') for piece in pieces)
        if len(self._held) > 1 or quoted or self.choice.captions[-1] != wanted - 1 or self.separator not in ",;|":
            return None
        if any(piece.startswith(" ") for piece in pieces[1:wanted]):
            return None
        for before, after in zip(pieces[wanted - 1 :], pieces[wanted:], strict=False):
            if not (after.startswith(" ") or before.endswith(" ")):
                return None
        return [*pieces[: wanted - 1], self.separator.join(pieces[wanted - 1 :])]

    def _refuse_swallowed_rows(self, first: int, cells: list[str]) -> None:
        """Raise ``UserError`` if a field with line breaks contains rows: lines with an image in the image column."""
        image = self.choice.image
        for number, cell in enumerate(cells):
            begin, *others = cell.split("\n")
            if not others:
                continue
            rows = [other.split(self.separator) for other in others]
            if number < image:  # the row's own image would follow the caption
                rows.append([*cells[:number], *begin.split(self.separator)])
            if number == image or any(len(row) > image and self._is_image(row[image]) for row in rows):
                raise UserError(self._swallowed(first, never_closed=False))

    def _is_image(self, cell: str) -> bool:
        name = cell.strip().strip('"')
        return looks_like_image(name) or (bool(name) and self._files.find(name) is not None)

    def _swallowed(self, first: int, never_closed: bool) -> str:
        opened = first + _find_open_quote(self._held, self.separator)
        last = "the end of the file" if never_closed else f"line {first + len(self._held) - 1}"
        return f"{self.path}, line {opened}: a quotation mark opens a field that goes on to {last}; {self._remedy()}"

    def _remedy(self) -> str:
        return f"close it, or {self._options.advise('--quoting none')} if quotation marks are plain characters here"


def _find_open_quote(lines: list[str], separator: str) -> int:
    """Return the number, from 0, of the line on which the longest quoted field opens.

    ``csv`` does not report it; a message that names the first line of the row would send users to the wrong place.
    """
    spans: list[tuple[int, int]] = []
    opened, at_start = -1, True
    for number, line in enumerate(lines):
        at_start = opened < 0
        position = 0
        while position < len(line):
            character = line[position]
            if opened >= 0 and character == '"':
                if line[position + 1 : position + 2] == '"':
                    position += 1
                else:
                    spans.append((number - opened, -opened))
                    opened = -1
            elif opened < 0 and character == '"' and at_start:
                opened = number
            at_start = character == separator or (at_start and character == " ")
            position += 1
    if opened >= 0:
        return opened
    return -max(spans, default=(0, 0))[1]
