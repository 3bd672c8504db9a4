"""Expand the names that users give, and suggest the nearest valid name or path."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from bimodal_cl.errors import nearest


def expand_name(given: str | Path) -> str:
    """Return a model's name with ``~`` and ``$VARIABLES`` expanded, also after ``local-dir:`` or ``NAME:``."""
    schema, colon, rest = os.path.expandvars(str(given)).strip().partition(":")
    if not colon:
        return os.path.expanduser(schema)  # noqa: PTH111 (a Path would lose the empty name)
    return f"{schema}:{os.path.expanduser(rest)}"  # noqa: PTH111


def near_name(name: str, choices: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the choice nearest to `name`, or ``""`` where none is near."""
    near = nearest(name, choices)
    return "" if near is None else f"; did you mean '{near}'?"


def near_path(path: Path) -> str:
    """Suggest a replacement for the missing part of `path`: the nearest name that exists, and what follows it."""
    missing = path
    while not missing.parent.is_dir() and missing.parent != missing:
        missing = missing.parent
    if not missing.parent.is_dir():
        return ""
    try:
        near = nearest(missing.name, [entry.name for entry in missing.parent.iterdir()])
    except OSError:
        return ""
    return "" if near is None else f"; did you mean '{Path(near) / path.relative_to(missing)}'?"
