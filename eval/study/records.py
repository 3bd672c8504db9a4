"""Keep what became of every run of a study, ``runs.jsonl``, and let one process at a time write it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bimodal_cl.errors import UserError
from bimodal_cl.files.locks import locked

from .runs import FINAL, Run, Study

FILE = "runs.jsonl"

Record = dict[str, Any]


class Records:
    """The records of a study's folder.

    A line is a run: ``method``, ``axes``, ``point``, ``seed``, ``stage``, ``recipe`` (the hash of its config),
    ``folder``, and either ``failed``, why there is no score, or ``val``, ``test``, ``log``, ``steps`` and ``seconds``.
    The last line of a run counts. A last line that a crash has cut short is dropped.

    Args:
        folder: the study's.
        test: what final runs are scored on, as their records say it.
    """

    def __init__(self, folder: Path, test: Mapping[str, Any] | None = None) -> None:
        self.path, self.test = folder / FILE, None if test is None else dict(test)
        self._of_run: dict[tuple[str, int], list[Record]] = {}
        for record in read_records(self.path):
            self._add(record)

    def find(self, run: Run) -> Record | None:
        """Return the record of a run, also one that says why it failed; None where it is yet to be done.

        A run that tunes is done by one of the same config in any stage; a final run also needs its scores on the test
        data.
        """
        known = self._of_run.get((run.recipe, run.seed), [])
        if run.stage == FINAL and self.test is not None:
            known = [each for each in known if each["stage"] == FINAL and each["test_data"] == self.test]
        succeeded = [each for each in known if "failed" not in each]
        return next(reversed(succeeded or known), None)

    def scored(self, run: Run) -> Record | None:
        """Return the record of a run that has scores."""
        found = self.find(run)
        return None if found is None or "failed" in found else found

    def append(self, record: Record) -> None:
        """Add a run's record and write its line to the disk."""
        line = json.dumps(_finite(record), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            file.truncate(_whole(self.path.read_bytes()))
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._add(json.loads(line))

    def forget_failures(self) -> None:
        """Count the failed runs as yet to be done; their lines stay."""
        for key, records in self._of_run.items():
            self._of_run[key] = [each for each in records if "failed" not in each]

    def _add(self, record: Record) -> None:
        self._of_run.setdefault((record["recipe"], record["seed"]), []).append(record)


def read_records(path: Path) -> list[Record]:
    """Return the whole lines of a study's records; none where there is no file yet.

    Raises:
        UserError: a line is no record.
    """
    if not path.is_file():
        return []
    content = path.read_bytes()
    records = []
    for number, line in enumerate(content[: _whole(content)].splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not {"recipe", "seed", "stage", "test_data"} <= record.keys():
            raise UserError(f"{path}: line {number} is no record of a run; remove it")
        records.append(record)
    return records


def scored_on(study: Study) -> dict[str, Any] | None:
    """Return what the final runs of a study are scored on, as their records say it."""
    return None if study.settings.test is None else study.settings.test.model_dump(mode="json")


@contextmanager
def locked_study(folder: Path) -> Iterator[None]:
    """Let no second process run a study in the same folder, which is made.

    Raises:
        UserError: another one does, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output: {folder} cannot be written: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"output: {folder} cannot be written: no permission")
    with locked(folder, f"{folder}: another process runs a study in this folder; wait for it, or end it"):
        yield


@contextmanager
def waiting_for(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder; wait while a process of a study that was killed still saves its run there."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, wait=True):
        yield


def _whole(content: bytes) -> int:
    """Return how many bytes are whole lines."""
    return content.rfind(b"\n") + 1


def _finite(value: Any) -> Any:
    """Replace numbers that JSON does not have by null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
