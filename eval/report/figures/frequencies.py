"""Draw temperatures over a measure of how frequent a meaning is: concept counts, or near neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .drawing import Drawing, add_axes, add_legend, use_decades
from .look import IMAGE, TEXT, Look

_KINDS = (("images", IMAGE, "o"), ("texts", TEXT, "^"))


def draw_frequencies(name: str, points: Sequence[tuple[np.ndarray, np.ndarray]], xlabel: str, ylabel: str) -> Drawing:
    """Draw a point for each item, images and texts apart, with a trend.

    Args:
        name: of the drawing.
        points: frequencies and temperatures, both ``[items]``, of images, then of texts; NaN is left out.
        xlabel: what is counted.
        ylabel: whose temperature it is.
    """

    def paint(figure: Figure, look: Look) -> None:
        axes = add_axes(figure)
        counts = np.concatenate([count for count, _ in points])
        wide = counts.max(initial=1) > 10 * max(1, counts[counts > 0].min(initial=1))
        for (count, tau), (label, color, marker) in zip(points, _KINDS, strict=True):
            known = np.isfinite(tau) & (count > 0 if wide else count >= 0)
            shown = look.color(color)
            axes.plot(
                count[known],
                tau[known],
                marker,
                color=shown,
                alpha=0.5 if known.sum() < 500 else 0.18,
                markersize=3.6 if known.sum() < 500 else 2.4,
                markeredgewidth=0,
                label=label,
            )
            axes.plot(*_trend(count[known], tau[known], wide), color=shown, linewidth=2)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if wide:
            use_decades(axes, "x")
        add_legend(axes, look, [label for label, *_ in _KINDS], markerscale=1.4)

    return Drawing(name, f"{ylabel} over {xlabel}", paint)


def _trend(counts: np.ndarray, tau: np.ndarray, geometric: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return means of up to 8 groups by frequency, equal in size; empty for fewer than 16 points."""
    if len(counts) < 16:
        return np.empty(0), np.empty(0)
    groups = np.array_split(np.argsort(counts, kind="stable"), 8)
    center = (lambda each: np.exp(np.log(each).mean())) if geometric else np.mean
    return np.array([center(counts[each]) for each in groups]), np.array([tau[each].mean() for each in groups])
