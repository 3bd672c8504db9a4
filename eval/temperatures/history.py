"""Follow the distribution of a run's temperatures over its training: by the kept checkpoints, and by the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bimodal_cl.errors import UserError

from ..trained_run import TrainedRun, load_tables, step_of
from .learned import Kind, learned_temperatures

PERCENTS = (5, 50, 95)
_MOST_LINES = 8


@dataclass(frozen=True)
class Spread:
    """The 5th, 50th and 95th percentile of the temperatures after some step; NaN where none is known.

    Attributes:
        step: optimizer steps.
        image, text: three values each, ascending.
    """

    step: int
    image: tuple[float, ...]
    text: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the values by the names that the log uses."""
        names = ((kind, f"{percent:02d}", value) for kind in ("image", "text") for percent, value in self._of(kind))
        return {"step": self.step, **{f"tau_{kind}_p{percent}": value for kind, percent, value in names}}

    def _of(self, kind: str) -> Sequence[tuple[int, float | None]]:
        values = self.image if kind == "image" else self.text
        return [(percent, None if np.isnan(one) else one) for percent, one in zip(PERCENTS, values, strict=True)]


def spread_by_checkpoint(run: TrainedRun) -> list[Spread]:
    """Return the percentiles over all visited ids of every kept checkpoint, oldest first.

    A checkpoint that cannot be read, or in which no image or text was visited, is left out. The tables of one
    checkpoint at a time are in memory.
    """
    found = []
    for checkpoint in run.folder.list_checkpoints():
        try:
            then = replace(run, checkpoint=checkpoint, step=step_of(checkpoint), tables=load_tables(checkpoint))
            image, text = _percentiles(then, "image"), _percentiles(then, "text")
        except UserError:
            continue
        if image is not None and text is not None:
            found.append(Spread(then.step, image, text))
    return sorted(found, key=lambda each: each.step)


def spread_by_log(run: TrainedRun) -> list[Spread]:
    """Return the percentiles over the batches that the log holds, oldest first; empty where it holds none."""
    found = []
    for line in run.training:
        image, text = ([line.get(f"tau_{kind}_p{percent:02d}") for percent in PERCENTS] for kind in ("image", "text"))
        numbers = [np.nan if value is None else float(value) for value in image + text]
        if not np.isnan(numbers).all():
            found.append(Spread(int(line["step"]), tuple(numbers[: len(PERCENTS)]), tuple(numbers[len(PERCENTS) :])))
    return found


def thin_out(spreads: Sequence[Spread], count: int = _MOST_LINES) -> list[Spread]:
    """Return at most ``count`` (>= 2) of them, evenly spaced, the first and the last among them."""
    if len(spreads) <= count:
        return list(spreads)
    return [spreads[place] for place in np.linspace(0, len(spreads) - 1, count).round().astype(int)]


def describe_spreads(title: str, spreads: Sequence[Spread]) -> list[str]:
    """Return the lines of a table, one row per step."""
    heads = "".join(f"{kind + ' ' + name:>13}" for kind in ("image", "text") for name in ("5 %", "median", "95 %"))
    rows = [f"{each.step:>10,}" + "".join(_cell(value) for value in each.image + each.text) for each in spreads]
    return [title, f"{'step':>10}{heads}", *rows]


def _cell(value: float) -> str:
    return f"{'–':>13}" if np.isnan(value) else f"{value:>13.4g}"


def _percentiles(run: TrainedRun, kind: Kind) -> tuple[float, ...] | None:
    temperatures = learned_temperatures(run, kind)
    if temperatures is None or not len(temperatures.tau):
        return None
    return tuple(np.percentile(temperatures.tau, PERCENTS).tolist())
