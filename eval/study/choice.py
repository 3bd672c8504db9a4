"""Choose the point of each grid by the mean validation score over the seeds that tune."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .records import Records
from .runs import Cell, Run, Study


@dataclass(frozen=True)
class PointScore:
    """The validation scores of a point of a grid.

    Attributes:
        scores: of its seeds.
        failed: why a seed has none; a point with such a seed is not chosen.
        missing: how many seeds are yet to be run.
    """

    scores: tuple[float, ...]
    failed: str | None
    missing: int

    @property
    def mean(self) -> float:
        """The mean; NaN where a seed has no score."""
        known = self.failed is None and not self.missing and self.scores
        return math.fsum(self.scores) / len(self.scores) if known else math.nan


@dataclass(frozen=True)
class Choice:
    """What a cell's tuning found.

    Attributes:
        cell: the cell.
        points: the scores of its grid; empty where it has one point, which is not tuned.
        chosen: place of the best point; None where none has all its scores, or some are yet to be run.
    """

    cell: Cell
    points: tuple[PointScore, ...]
    chosen: int | None

    @property
    def done(self) -> bool:
        """Whether all runs that tune are done."""
        return not any(each.missing for each in self.points)

    def at_border(self, least: int = 2) -> list[str]:
        """Return what lies on the border of the grid, such as ``tau 0.1 (largest of 3)``.

        Args:
            least: number of values that a key must have in the grid; one of two is always on a border.
        """
        if self.chosen is None:
            return []
        found = []
        for key, value in self.cell.points[self.chosen].items():
            numbers: set[float] = {each[key] for each in self.cell.points if _is_number(each.get(key))}
            if not _is_number(value) or len(numbers) < least:
                continue
            for end, word in ((min(numbers), "smallest"), (max(numbers), "largest")):
                if value == end:
                    found.append(f"{key.rpartition('.')[2]} {value:g} ({word} of {len(numbers)})")
        return found


def choose(study: Study, records: Records, cell: Cell) -> Choice:
    """Choose a cell's point: the best mean, the first of equal ones."""
    runs = study.tuning(cell)
    if not runs:
        return Choice(cell, (), 0)
    points = [
        _score(study, records, [each for each in runs if each.point == point]) for point in range(len(cell.points))
    ]
    means = [each.mean for each in points]
    known = [each for each in means if not math.isnan(each)]
    done = not any(each.missing for each in points)
    return Choice(cell, tuple(points), means.index(max(known)) if known and done else None)


def _score(study: Study, records: Records, runs: list[Run]) -> PointScore:
    found = [records.find(each) for each in runs]
    failed = next((each["failed"] for each in found if each is not None and "failed" in each), None)
    scores = tuple(float(each["val"][study.settings.score]) for each in found if each is not None and "val" in each)
    return PointScore(scores, failed, sum(each is None for each in found))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
