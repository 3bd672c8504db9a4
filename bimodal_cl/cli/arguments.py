"""Types of command-line arguments, and the flags that several commands share."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from bimodal_cl.errors import UserError
from bimodal_cl.files.paths import expand_path


def path_text(text: str) -> str:
    """Return a path, or a name that may be one, with ``~`` and ``$NAME`` expanded.

    Raises:
        ArgumentTypeError: the path is empty, or names a variable that is not set.
    """
    try:
        return expand_path(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(f"{error}, in '{text}'" if text.strip() else str(error)) from None


def path_argument(text: str) -> Path:
    """Return :func:`path_text` as a ``Path``; a :class:`~bimodal_cl.cli.parser.Parser` uses it for ``type=Path``."""
    return Path(path_text(text))


def positive_integer(text: str) -> int:
    """Return an integer of at least 1.

    Raises:
        ArgumentTypeError: the text is not one.
    """
    if not re.fullmatch(r"\+?\d+", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got '{text}'")
    return int(text)


def natural_number(text: str) -> int:
    """Return an integer of at least 0.

    Raises:
        ArgumentTypeError: the text is not one.
    """
    if not re.fullmatch(r"\+?\d+", text):
        raise argparse.ArgumentTypeError(f"must be an integer of at least 0, got '{text}'")
    return int(text)
