"""Decode the lines of a table, and refuse files that are not text or have another encoding."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from pathlib import Path

from bimodal_cl.errors import UserError

_SAMPLE = 1 << 16  # bytes at the beginning of a file that are examined
_UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_NOT_TEXT = {
    b"\x1f\x8b": "compressed by gzip: unpack it first",
    b"PK\x03\x04": "a zip archive or a spreadsheet (.xlsx): save the sheet as CSV first",
    b"PAR1": "a parquet file: use 'bimodal-prep write hf'",
}


class TableLines:
    """Iterate once over the physical lines of a file, without line breaks; ``number`` counts them.

    Lines end at line feeds or, in a file without any, at carriage returns (old Macs). Other carriage returns become
    spaces, as the writer would make them in a caption.

    Args:
        path: the file, which may be a pipe.
        encoding: the encoding of the file; a byte order mark at its beginning is dropped.

    Raises:
        UserError: while iterating: the file cannot be read or decoded, or is not text.
    """

    def __init__(self, path: Path, encoding: str) -> None:
        self.path = path
        self.encoding = encoding
        self.number = 0
        self.ended = False
        self._lines = self._read()

    def __iter__(self) -> TableLines:
        return self

    def __next__(self) -> str:
        line = next(self._lines, None)
        if line is None:
            self.ended = True
            raise StopIteration
        self.number += 1
        return line

    def _read(self) -> Iterator[str]:
        try:
            with io.BufferedReader(self.path.open("rb", buffering=0), _SAMPLE) as file:
                sample = file.peek(_SAMPLE)
                self._refuse_other_content(sample)
                text = io.TextIOWrapper(file, self.encoding, newline=self._find_line_end(sample))
                for number, line in enumerate(text):
                    line = line.rstrip("\r\n")
                    yield (line.lstrip("\ufeff") if number == 0 else line).replace("\r", " ")
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise UserError(self._not_in_encoding(error)) from None
        except (UnicodeError, LookupError) as error:
            raise UserError(f"{self.path} is not {self.encoding} ({error}); give --encoding") from None

    def _refuse_other_content(self, sample: bytes) -> None:
        for begin, what in _NOT_TEXT.items():
            if sample.startswith(begin):
                raise UserError(f"{self.path} is {what}")
        if codecs.lookup(self.encoding).name.startswith(("utf-16", "utf-32")):
            return
        zeros = [sample[side:400:2].count(0) for side in (0, 1)]
        if sample.startswith(_UTF_16_MARKS):
            raise UserError(f"{self.path} is UTF-16, not {self.encoding}; give --encoding utf-16")
        if max(zeros) > len(sample[:400]) // 4:
            kind = "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
            raise UserError(f"{self.path} is UTF-16, not {self.encoding}, by its zero bytes; give --encoding {kind}")

    def _find_line_end(self, sample: bytes) -> str:
        text = codecs.getincrementaldecoder(self.encoding)(errors="replace").decode(sample)
        return "\r" if "\r" in text and "\n" not in text else "\n"

    def _not_in_encoding(self, error: UnicodeDecodeError) -> str:
        byte = error.object[error.start : error.start + 1].hex()
        where = f"{self.path}, line {self._line_of_fault()}"
        return (
            f"{where} is not {self.encoding} (byte 0x{byte}: {error.reason}); give --encoding, "
            "such as cp1252 (Windows) or latin-1"
        )

    def _line_of_fault(self) -> int:
        """Return the first line that cannot be decoded; approximate for UTF-16, whose line feeds are two bytes."""
        if not self.path.is_file():
            return self.number + 1
        with self.path.open("rb") as file:
            faulty = (number for number, line in enumerate(file, 1) if not _decodes(line, self.encoding))
            return next(faulty, self.number + 1)


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
