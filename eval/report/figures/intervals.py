"""Draw scores of several models as dots with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .drawing import Drawing, add_axes, add_legend
from .look import MARKERS, MUTED, ROWS, Look

_LINE = 0.155  # inches of a dot's line on the page


@dataclass(frozen=True)
class Dot:
    """A score: ``value``, ``low`` and ``high`` (NaN: no interval), and the values of its seeds, in percent."""

    value: float
    low: float
    high: float
    seeds: tuple[float, ...] = ()


def draw_dots(
    name: str,
    label: str,
    scores: Sequence[tuple[str, Sequence[Dot | None], float | None]],
    rows: Sequence[tuple[str, int]],
) -> Drawing:
    """Draw a block of lines for each score, one line for each row, with a dash at the level of chance.

    Args:
        name: of the drawing.
        label: what it shows, in words.
        scores: name, the rows' dots (None: not scored), and the level of chance in percent, if it is known.
        rows: label and number of each row.
    """
    gap = len(rows) + 0.9

    def paint(figure: Figure, look: Look) -> None:
        axes = add_axes(figure)
        for place, (_, dots, chance) in enumerate(scores):
            top = place * gap
            if chance is not None:
                axes.plot(
                    [chance] * 2, [top - 0.6, top + len(rows) - 0.4], color=look.color(MUTED), lw=1, ls=(0, (3, 2))
                )
            for line, (dot, (_, row)) in enumerate(zip(dots, rows, strict=True)):
                if dot is None:
                    continue
                color, y = look.color(ROWS[row % len(ROWS)]), top + line
                if np.isfinite(dot.low):
                    axes.plot([dot.low, dot.high], [y, y], color=color, linewidth=1.5)
                axes.plot(dot.seeds, [y] * len(dot.seeds), "|", color=color, markersize=6, alpha=0.75)
                axes.plot(dot.value, y, MARKERS[row % len(MARKERS)], color=color, markersize=4.6)
        axes.set_yticks(
            [place * gap + (len(rows) - 1) / 2 for place in range(len(scores))], [each[0] for each in scores]
        )
        axes.set_ylim(len(scores) * gap - 1.2, -0.9)
        axes.grid(False, axis="y")
        axes.set_xlabel("score (%)")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlim(left=max(0.0, axes.get_xlim()[0]))
        for text, row in rows:
            color = look.color(ROWS[row % len(ROWS)])
            axes.plot([], [], color=color, marker=MARKERS[row % len(MARKERS)], markersize=4.6, label=text)
        add_legend(axes, look, [text for text, _ in rows])

    return Drawing(name, label, paint, height=0.9 + _LINE * gap * len(scores))
