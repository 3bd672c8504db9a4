"""Keep which files every figure and table of a report is made from, so that a reader can trace each number."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from bimodal_cl.files.checksums import hash_files
from bimodal_cl.run_folder import LOSS_FILE, STATE_FILE

from .figures.drawing import Drawing

_LINES = {"metrics.jsonl": "the log of the training", "runs.jsonl": "the records of the runs of a study"}


@dataclass(frozen=True)
class SourceFile:
    """A file that figures are made from.

    Attributes:
        number: as the page refers to it.
        path: as it was found.
        sha256: of the file.
        facts: ``(name, value)`` of what it records: model, checkpoint, data, command.
    """

    number: int
    path: str
    sha256: str
    facts: list[tuple[str, str]]


@dataclass(frozen=True)
class Placed:
    """A figure on the page: how to read it, and the numbers of its files."""

    title: str
    drawing: Drawing
    svg: Markup
    read: str
    files: list[int]


@dataclass
class Sources:
    """The figures and tables placed so far, and their files.

    Attributes:
        figures: in the order of the page.
        tables: title and files of each table.
    """

    figures: list[Placed] = field(default_factory=list)
    tables: list[tuple[str, list[int]]] = field(default_factory=list)
    _files: dict[Path, SourceFile] = field(default_factory=dict)

    @property
    def files(self) -> list[SourceFile]:
        """The files by their numbers."""
        return list(self._files.values())

    def place(self, title: str, drawing: Drawing, read: str, paths: Iterable[Path]) -> Placed:
        """Place a figure that is made from some files."""
        placed = Placed(title, drawing, drawing.inline(), read, self.cite(paths))
        self.figures.append(placed)
        return placed

    def tabulate(self, title: str, paths: Iterable[Path]) -> list[int]:
        """Place a table that is made from some files, and return their numbers."""
        numbers = self.cite(paths)
        self.tables.append((title, numbers))
        return numbers

    def cite(self, paths: Iterable[Path]) -> list[int]:
        """Return the numbers of files, in order; a file that is not there has none."""
        numbers = set()
        for path in paths:
            if path not in self._files and path.is_file():
                self._files[path] = SourceFile(len(self._files) + 1, str(path), hash_files(path), _facts(path))
            if path in self._files:
                numbers.add(self._files[path].number)
        return sorted(numbers)


def _facts(path: Path) -> list[tuple[str, str]]:
    """Return what a file says about where its numbers come from."""
    if path.name == LOSS_FILE:
        return [("holds", "the learned temperatures"), *_of_state(path.with_name(STATE_FILE))]
    if path.suffix != ".json":
        return [("holds", _LINES[path.name])] if path.name in _LINES else []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    found: Any = content.get("provenance") if isinstance(content, dict) else None
    if not isinstance(found, dict):
        return []
    facts = [
        ("command", found.get("command")),
        ("data", found.get("data")),
        ("checkpoint", found.get("checkpoint")),
        ("weights' SHA-256", str(found.get("checkpoint_sha256") or "")[:16]),
        ("step", found.get("step")),
    ]
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def _of_state(path: Path) -> list[tuple[str, str]]:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [("step", str(state["step"]))] if isinstance(state, dict) and "step" in state else []
