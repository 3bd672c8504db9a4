"""Read text files with any byte order mark and any line ends."""

from __future__ import annotations

import codecs
from pathlib import Path

# UTF-32's little-endian mark begins with UTF-16's, so it is tested first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class NotText(ValueError):
    """Bytes are not text; the message is one line that names the place but not the file."""


def read_text(path: Path) -> str:
    """Read a text file as UTF-8, or as its byte order mark says; the mark is removed, and line ends become ``\\n``.

    Raises:
        OSError: the file cannot be read.
        NotText: its bytes are not text of that encoding.
    """
    return decode_text(path.read_bytes()).replace("\r\n", "\n").replace("\r", "\n")


def decode_text(data: bytes, errors: str = "strict") -> str:
    """Decode text as :func:`read_text` does, but keep the line ends.

    Args:
        data: the whole text.
        errors: ``"strict"``, or ``"replace"`` to turn what cannot be decoded into U+FFFD.

    Raises:
        NotText: the bytes are not text of that encoding, or contain a NUL, as UTF-16 without a mark does.
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
        raise NotText(f"a NUL on line {line}: not text, or UTF-16 without a byte order mark; save it as UTF-8")
    return text
