"""Draw values over optimizer steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .drawing import Drawing, add_axes, add_legend, use_decades
from .look import INK, Look

_BLOCKS = 150


@dataclass(frozen=True)
class Series:
    """A line: ``steps`` and ``values`` are ``[points]``; ``label`` is "" where one line needs no legend.

    ``band`` is ``[2, points]``, a lower and an upper value of each point; without it, dense points have their range.
    """

    label: str
    steps: np.ndarray
    values: np.ndarray
    color: str = INK
    dash: Any = "-"
    marker: str = ""
    band: np.ndarray | None = None


def draw_curves(
    name: str, series: Sequence[Series], ylabel: str, percent: bool = False, decades: bool = False
) -> Drawing:
    """Draw values over optimizer steps; many points become the mean and the range of blocks of neighbours.

    Args:
        name: of the drawing.
        series: the lines.
        ylabel: with its unit.
        percent: values are fractions shown in percent.
        decades: use a logarithmic axis where the values span more than a decade.
    """
    scale = 100 if percent else 1

    def paint(figure: Figure, look: Look) -> None:
        axes = add_axes(figure)
        for each in series:
            color = look.color(each.color)
            steps, low, mean, high = _blocks(each.steps, scale * each.values)
            if each.band is not None:
                low, high = (_blocks(each.steps, scale * bound)[2] for bound in each.band)
            if each.band is not None or len(steps) < len(each.steps):
                axes.fill_between(steps, low, high, color=color, alpha=0.16, linewidth=0)
            axes.plot(
                steps, mean, color=color, linestyle=each.dash, label=each.label, marker=each.marker, markersize=3.5
            )
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
        drawn = [part for each in series for part in (each.values, each.band) if part is not None]
        values = np.concatenate([part.ravel() for part in drawn])
        if decades and (values > 0).all() and values.max() > 10 * values.min():
            use_decades(axes, "y")
        else:
            axes.yaxis.set_major_locator(MaxNLocator(5))
            if percent:
                axes.set_ylim(0, max(1.0, min(100.0, 108 * float(values.max()))))
        if labels := [each.label for each in series if each.label]:
            add_legend(axes, look, labels)

    return Drawing(name, f"{ylabel} over optimizer steps", paint)


def _blocks(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return ``steps, min, mean, max`` of blocks of neighbouring points; few points stay as they are."""
    if len(steps) <= 2 * _BLOCKS:
        return steps, values, values, values
    starts = np.linspace(0, len(steps), _BLOCKS, endpoint=False).astype(int)
    sizes = np.diff(np.append(starts, len(steps)))
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    return np.add.reduceat(steps, starts) / sizes, low, np.add.reduceat(values, starts) / sizes, high
