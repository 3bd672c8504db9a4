"""Compare the metrics of two results of one data set, and what CLIP_benchmark's table makes of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LIMIT = 1e-6  # largest difference of a metric that counts as equal


@dataclass(frozen=True)
class Agreement:
    """A metric of both sides.

    Args:
        metric: its name.
        ours: our value; None where we have none.
        theirs: CLIP_benchmark's.
    """

    metric: str
    ours: float | None
    theirs: float

    @property
    def difference(self) -> float:
        """Ours minus theirs; not a number where we have none."""
        return math.nan if self.ours is None else self.ours - self.theirs

    @property
    def holds(self) -> bool:
        """Whether the values are equal up to ``LIMIT``."""
        return abs(self.difference) <= LIMIT


def compare_metrics(ours: Mapping[str, float], theirs: Mapping[str, float]) -> list[Agreement]:
    """Compare every metric of CLIP_benchmark with ours.

    A value that is not a number says that the metric is not defined (``acc5`` of fewer than five classes), which we say
    by leaving it out; ours beyond CLIP_benchmark's have nothing to be compared with.
    """
    return [
        Agreement(name, ours.get(name), value)
        for name, value in theirs.items()
        if name in ours or not math.isnan(value)
    ]


def find_misread(row: Mapping[str, str], result: Mapping[str, Any]) -> list[str]:
    """Return what a row of CLIP_benchmark's table does not say as the result does: names of metrics and of keys."""
    wrong = [
        name for name, value in result["metrics"].items() if name not in row or abs(float(row[name]) - value) > LIMIT
    ]
    wrong += [name for name in ("dataset", "model", "pretrained", "task", "language") if row.get(name) != result[name]]
    if row.get("model_fullname") != f"{result['model']} {result['pretrained']}":
        wrong.append("model_fullname")
    return wrong
