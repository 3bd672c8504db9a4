"""The report's figures as inline SVG: text stays text, colours follow the page, nothing refers to another file.

Images are always drawn in one colour and texts in another (Okabe and Ito's blue and vermilion, which colour-blind
readers tell apart), and also differ by a dash pattern or a marker.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

# Colours that nothing else uses; `_inline` turns them into the page's CSS variables, so that figures follow its scheme.
INK, MUTED, GRID, IMAGE, TEXT = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", IMAGE: "--image", TEXT: "--text"}

_STYLE = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.edgecolor": GRID,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "xtick.minor.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 2.8,
    "legend.columnspacing": 1.2,
    "legend.borderpad": 0,
    "legend.borderaxespad": 0,
}
_SIZE = (5.0, 2.75)  # inches of 72 units: a column of a laptop's page, or a phone's width
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
    dash: str = "-"
    marker: str = ""
    band: np.ndarray | None = None


def draw_curves(
    name: str, series: Sequence[Series], ylabel: str, percent: bool = False, decades: bool = False
) -> Markup:
    """Draw values over optimizer steps; many points become the mean and the range of blocks of neighbours.

    Args:
        name: unique in the page; the SVG's ids begin with it.
        ylabel: with its unit.
        percent: values are fractions shown in percent.
        decades: use a logarithmic axis where the values span more than a decade.
    """
    with rc_context(_STYLE):
        figure, axes = _new_figure()
        for each in series:
            values = each.values * (100 if percent else 1)
            steps, low, mean, high = _blocks(each.steps, values)
            if each.band is not None:
                low, high = (_blocks(each.steps, bound * (100 if percent else 1))[2] for bound in each.band)
            if each.band is not None or len(steps) < len(each.steps):
                axes.fill_between(steps, low, high, color=each.color, alpha=0.16, linewidth=0)
            axes.plot(
                steps, mean, color=each.color, linestyle=each.dash, label=each.label, marker=each.marker, markersize=3.5
            )
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
        drawn = [part for each in series for part in (each.values, each.band) if part is not None]
        values = np.concatenate([part.ravel() for part in drawn])
        if decades and (values > 0).all() and values.max() > 10 * values.min():
            _decades(axes, "y")
        else:
            axes.yaxis.set_major_locator(MaxNLocator(5))
            if percent:
                axes.set_ylim(0, max(1.0, min(100.0, 108 * float(values.max()))))
        if any(each.label for each in series):
            columns = 2 if len(series) > 4 else len(series)  # three of the long names do not fit
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1.03), ncols=columns)
        return _inline(figure, name, f"{ylabel} over optimizer steps")


def draw_histogram(
    name: str, tau: np.ndarray, edges: np.ndarray, what: str, color: str, bounds: Sequence[float]
) -> Markup:
    """Draw how often temperatures occur, with a line at the median and dashed lines at the loss's bounds.

    Args:
        tau: ``[visited]``, > 0.
        edges: bin edges (see :func:`histogram_edges`), shared by the figures that are to be compared.
        what: "images" or "texts".
        bounds: temperatures to mark.
    """
    with rc_context(_STYLE):
        figure, axes = _new_figure()
        counts, _ = np.histogram(tau, edges)
        axes.stairs(counts, edges, fill=True, color=color, alpha=0.85)
        median = float(np.median(tau))
        axes.axvline(median, color=INK, linewidth=1.1)
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
                axes.axvline(bound, color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
        axes.set_xlabel("temperature tau (no unit)")
        axes.set_ylabel(f"number of {what}")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
        axes.grid(False, axis="x")
        axes.set_xlim(edges[0], edges[-1])
        if _is_logarithmic(edges):
            _decades(axes, "x")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5))
        return _inline(figure, name, f"histogram of the temperatures of {what}")


def histogram_edges(values: np.ndarray, bins: int = 44) -> np.ndarray:
    """Return bin edges for values ``> 0``: geometric if they span more than a factor of 8, else of equal width."""
    low, high = float(values.min()), float(values.max())
    if high <= low * 1.02:
        low, high = low * 0.9, high * 1.1
    if high > 8 * low:
        return np.geomspace(low * 0.97, high * 1.03, bins + 1)
    margin = 0.02 * (high - low)
    return np.linspace(low - margin, high + margin, bins + 1)


def draw_frequencies(name: str, counts: np.ndarray, image_tau: np.ndarray, text_tau: np.ndarray) -> Markup:
    """Draw the mean temperature of every concept over its frequency, one point per modality, with a trend.

    Args:
        counts: ``[concepts]``, occurrences in the training data.
        image_tau, text_tau: ``[concepts]``, NaN where none was visited.
    """
    with rc_context(_STYLE):
        figure, axes = _new_figure()
        for label, tau, color, marker in (("images", image_tau, IMAGE, "o"), ("texts", text_tau, TEXT, "^")):
            known = np.isfinite(tau) & (counts > 0)
            axes.plot(
                counts[known],
                tau[known],
                marker,
                color=color,
                alpha=0.5,
                markersize=3.6,
                markeredgewidth=0,
                label=label,
            )
            axes.plot(*_trend(counts[known], tau[known]), color=color, linewidth=2)
        axes.set_xlabel("occurrences of the concept in the training data")
        axes.set_ylabel("mean tau (no unit)")
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if counts.max() > 10 * max(1, counts[counts > 0].min()):
            _decades(axes, "x")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.03), ncols=2, markerscale=1.4)
        return _inline(figure, name, "mean temperature of each concept over its frequency")


def _new_figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def _blocks(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return ``steps, min, mean, max`` of blocks of neighbouring points; few points stay as they are."""
    if len(steps) <= 2 * _BLOCKS:
        return steps, values, values, values
    starts = np.linspace(0, len(steps), _BLOCKS, endpoint=False).astype(int)
    sizes = np.diff(np.append(starts, len(steps)))
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    return np.add.reduceat(steps, starts) / sizes, low, np.add.reduceat(values, starts) / sizes, high


def _trend(counts: np.ndarray, tau: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means of up to 8 groups of concepts by frequency, equal in size; empty for fewer than 16 concepts."""
    if len(counts) < 16:
        return np.empty(0), np.empty(0)
    groups = np.array_split(np.argsort(counts, kind="stable"), 8)
    return np.array([np.exp(np.log(counts[each]).mean()) for each in groups]), np.array(
        [tau[each].mean() for each in groups]
    )


def _is_logarithmic(edges: np.ndarray) -> bool:
    return bool(edges[0] > 0 and np.allclose(np.diff(np.log(edges)), np.log(edges[1] / edges[0])))


def _decades(axes: Axes, which: str) -> None:
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _inline(figure: Figure, name: str, label: str) -> Markup:
    """Turn a figure into an ``<svg>`` that can share a page with others: unique ids, no size, the page's colours."""
    with rc_context({**_STYLE, "svg.hashsalt": name}):
        stream = io.StringIO()
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    head, _, body = svg.partition(">")
    view = re.search(r'viewBox="[^"]*"', head)
    assert view is not None, "matplotlib's SVG has no viewBox"
    body = re.sub(r'\bid="', f'id="{name}-', body).replace("url(#", f"url(#{name}-")
    body = body.replace('xlink:href="#', f'href="#{name}-')
    for color, variable in _VARIABLES.items():
        body = body.replace(color, f"var({variable})")
    # Every text in it was escaped by matplotlib's XML writer, so the whole is markup.
    return Markup(f'<svg {view.group()} role="img" aria-label="{Markup.escape(label)}">{body}')
