"""Draw how temperatures are distributed: a histogram of one model's, or the outlines of several models'."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .drawing import Drawing, add_axes, add_legend, is_geometric, use_decades
from .look import DASHES, INK, MUTED, ROWS, Look


def draw_histogram(
    name: str, tau: np.ndarray, edges: np.ndarray, what: str, color: str, bounds: Sequence[float]
) -> Drawing:
    """Draw how often temperatures occur, with a line at the median and dashed lines at the loss's bounds.

    Args:
        name: of the drawing.
        tau: ``[visited]``, > 0.
        edges: bin edges (see :func:`histogram_edges`), shared by the figures that are to be compared.
        what: "images" or "texts".
        color: its name.
        bounds: temperatures to mark.
    """

    def paint(figure: Figure, look: Look) -> None:
        axes = add_axes(figure)
        counts, _ = np.histogram(tau, edges)
        axes.stairs(counts, edges, fill=True, color=look.color(color), alpha=0.85)
        median = float(np.median(tau))
        axes.axvline(median, color=look.color(INK), linewidth=1.1)
        right = np.searchsorted(edges, median) > 0.65 * len(edges)
        axes.annotate(
            f"median {median:.3g}",
            (median, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if right else 4, 3),
            textcoords="offset points",
            ha="right" if right else "left",
        )
        for bound in bounds:
            if edges[0] <= bound <= edges[-1]:
                axes.axvline(bound, color=look.color(MUTED), linewidth=1, linestyle=(0, (3, 2)))
        axes.set_ylabel(f"number of {what}")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
        _scale(axes, edges)

    return Drawing(name, f"histogram of the temperatures of {what}", paint)


def draw_outlines(name: str, taus: Sequence[tuple[str, int, np.ndarray]], edges: np.ndarray, what: str) -> Drawing:
    """Draw the distributions of several models' temperatures as outlines of the same area.

    Args:
        name: of the drawing.
        taus: label, number of the row, and temperatures ``[visited]`` of each.
        edges: bin edges.
        what: "images" or "texts".
    """

    def paint(figure: Figure, look: Look) -> None:
        axes = add_axes(figure)
        for label, row, tau in taus:
            counts, _ = np.histogram(tau, edges)
            color, dash = look.color(ROWS[row % len(ROWS)]), DASHES[row % len(DASHES)]
            axes.stairs(100 * counts / counts.sum(), edges, color=color, linewidth=1.6, linestyle=dash, label=label)
        axes.set_ylabel(f"share of {what} (%)")
        axes.yaxis.set_major_locator(MaxNLocator(4))
        _scale(axes, edges)
        add_legend(axes, look, [label for label, *_ in taus])

    return Drawing(name, f"distribution of the temperatures of {what}", paint)


def histogram_edges(values: np.ndarray, bins: int = 44) -> np.ndarray:
    """Return bin edges for values ``> 0``: geometric if they span more than a factor of 8, else of equal width."""
    low, high = float(values.min()), float(values.max())
    if high <= low * 1.02:
        low, high = low * 0.9, high * 1.1
    if high > 8 * low:
        return np.geomspace(low * 0.97, high * 1.03, bins + 1)
    margin = 0.02 * (high - low)
    return np.linspace(low - margin, high + margin, bins + 1)


def _scale(axes: Axes, edges: np.ndarray) -> None:
    axes.set_xlabel("temperature tau (no unit)")
    axes.grid(False, axis="x")
    axes.set_xlim(edges[0], edges[-1])
    if is_geometric(edges):
        use_decades(axes, "x")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
