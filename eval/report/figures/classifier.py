"""Draw how a classifier errs and how far its confidence can be trusted: confusion heat map, reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from .drawing import Drawing, add_axes, add_legend
from .look import DASHES, GRID, INK, MARKERS, MUTED, ROWS, Look

_HUE = (0.0, 0.447, 0.698)  # a shade of one colour, by transparency: it is read on light and on dark pages
_MOST_NUMBERS, _MOST_NAMES = 12, 40
_LONGEST = 14


def draw_confusions(name: str, classes: Sequence[str], counts: np.ndarray) -> Drawing:
    """Draw the share of each true class (row) that was taken for each class (column).

    Args:
        name: of the drawing.
        classes: names.
        counts: ``[classes, classes]``.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = len(classes)

    def paint(figure: Figure, look: Look) -> None:
        axes = add_axes(figure)
        colors = LinearSegmentedColormap.from_list("shade", [(*_HUE, 0.0), (*_HUE, 0.9)])
        axes.imshow(shares, cmap=colors, vmin=0, vmax=max(float(shares.max()), 1e-9), interpolation="nearest")
        if size <= _MOST_NUMBERS:
            for row, column in np.argwhere(shares >= 0.005):
                share = shares[row, column]
                strong = share > 0.6 * shares.max()
                axes.text(
                    column,
                    row,
                    f"{100 * share:.0f}",
                    ha="center",
                    va="center",
                    fontsize=look.font - 1.5,
                    color="white" if strong else look.color(INK),
                )
        axes.grid(False)
        if size <= _MOST_NAMES:
            names = [each if len(each) <= _LONGEST else f"{each[: _LONGEST - 1]}…" for each in classes]
            small = look.font - (1 if size <= _MOST_NUMBERS else 3)
            axes.set_xticks(range(size), names, rotation=90, fontsize=small)
            axes.set_yticks(range(size), names, fontsize=small)
        axes.set_xlabel("taken for")
        axes.set_ylabel("true class")

    return Drawing(name, "share of each class that was taken for each class, in percent", paint, height=4.6)


def draw_reliability(name: str, models: Sequence[tuple[str, int, np.ndarray, np.ndarray, np.ndarray]]) -> Drawing:
    """Draw the accuracy over the confidence, one line for each model, with the diagonal of perfect calibration.

    Args:
        name: of the drawing.
        models: label, number of the row, and of its bins that are not empty the confidence, the accuracy (both in
            ``[0, 1]``) and the count.
    """

    def paint(figure: Figure, look: Look) -> None:
        axes = add_axes(figure)
        axes.plot([0, 100], [0, 100], color=look.color(MUTED), linewidth=1, linestyle=(0, (3, 2)))
        for label, row, confidence, accuracy, count in models:
            color = look.color(ROWS[row % len(ROWS)])
            axes.plot(100 * confidence, 100 * accuracy, color=color, linestyle=DASHES[row % len(DASHES)], linewidth=1.4)
            sizes = 8 + 60 * count / count.max()
            marker = MARKERS[row % len(MARKERS)]
            axes.scatter(100 * confidence, 100 * accuracy, sizes, color=color, marker=marker, linewidths=0)
            axes.plot([], [], color=color, marker=marker, linestyle=DASHES[row % len(DASHES)], label=label)
        axes.set_xlabel("confidence (%)")
        axes.set_ylabel("accuracy (%)")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.axhline(0, color=look.color(GRID), linewidth=0.8)
        add_legend(axes, look, [label for label, *_ in models])

    return Drawing(name, "accuracy over confidence", paint, height=3.4)
