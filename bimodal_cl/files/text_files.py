"""Text that people and other programs wrote: byte order marks and line ends of every kind are understood."""

from __future__ import annotations

import codecs
from pathlib import Path

# UTF-32's little-endian mark begins with UTF-16's, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class NotText(ValueError):
    """Bytes that are no text; the message says in one line where they stop to be, without naming the file."""


def read_text(path: Path) -> str:
    """Read a text file as UTF-8, or as its byte order mark says; the mark is taken off, line ends become ``\\n``.

    Raises:
        OSError: the file cannot be read.
        NotText: its bytes are not text of that encoding.
    """
    return decode_text(path.read_bytes()).replace("\r\n", "\n").replace("\r", "\n")


def decode_text(data: bytes, errors: str = "strict") -> str:
    """Decode text as :func:`read_text` does, line ends as they are.

    Args:
        data: the whole of a text.
        errors: ``"strict"``, or ``"replace"`` to make U+FFFD of what cannot be decoded.

    Raises:
        NotText: the bytes are not text of that encoding, or hold a NUL, as UTF-16 without a mark does.
    """
    mark, encoding = next((each for each in _MARKS if data.startswith(each[0])), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding, errors)
    except UnicodeDecodeError as error:
        place = len(mark) + error.start
        line = data.count(b"\n", 0, place) + 1
        raise NotText(f"byte {data[place]:#04x} on line {line} is not {encoding.upper()}; save it as UTF-8") from None
    if errors == "strict" and "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise NotText(f"a NUL on line {line}: no text, or UTF-16 without a byte order mark; save it as UTF-8")
    return text
