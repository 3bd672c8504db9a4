"""Draw a study: scores over an axis, scores at each setting, and how a score depends on the point of the grid."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ...report.figures.drawing import Drawing, add_axes, add_legend
from ...report.figures.intervals import Dot
from ...report.figures.look import DASHES, MARKERS, ROWS, Look
from ...report.scores import metric_name
from ...report.sources import Placed, Sources
from ..runs import axis_name
from .comparisons import CellScores
from .tables import Findings

_SHOWN = ("image_retrieval_recall@1", "text_retrieval_recall@1", "rsum")
_ROW = 0.24  # inches of a line of the grid on the page
_INTERVAL = "Bars are 95 % intervals over the seeds."


@dataclass(frozen=True)
class _Line:
    label: str
    number: int
    dots: list[tuple[float, Dot]]  # by the axis value


@dataclass(frozen=True)
class _Row:
    label: str
    number: int
    dot: Dot
    hollow: tuple[float, ...] = ()


def place_figures(findings: Findings, file: Path, sources: Sources) -> dict[str, list[Placed]]:
    """Place the figures of a study, and return them by the part of the page that shows them.

    Args:
        findings: what is drawn.
        file: the records that it is from.
        sources: receives the figures.
    """
    return {
        "axes": _over_axes(findings, file, sources),
        "dots": _at_places(findings, file, sources),
        "grids": _grids(findings, file, sources),
    }


def shown_metrics(findings: Findings) -> list[str]:
    """Return the metrics that are drawn."""
    return [each for each in _SHOWN if each in findings.metrics] or findings.metrics[:2]


def method_number(findings: Findings, method: str) -> int:
    """Return the place of a method in the study's file, which chooses its colour and marker."""
    return list(findings.study.settings.methods).index(method)


def marker_of(number: int) -> str:
    """Return the marker of a method; with its colour it tells the method from 63 others."""
    return MARKERS[(number + number // len(MARKERS)) % len(MARKERS)]


def _dot(each: CellScores, metric: str) -> Dot | None:
    """Return a cell's score in percent; RSUM as the mean of its six recalls."""
    if metric not in each.estimates:
        return None
    scale = 100 / 6 if metric == "rsum" else 100.0
    one, values = each.estimates[metric], each.scores[metric].values()
    return Dot(scale * one.value, scale * one.low, scale * one.high, tuple(scale * value for value in values))


def _name(metric: str) -> str:
    return "mean recall (RSUM / 6)" if metric == "rsum" else metric_name(metric)


def _over_axes(findings: Findings, file: Path, sources: Sources) -> list[Placed]:
    """Return a figure for each axis of numbers, each combination of the others, and each metric."""
    placed = []
    for axis, values in findings.study.settings.axes.items():
        if len(values) < 2 or not all(_is_number(label) for label in values):
            continue
        others = dict.fromkeys(
            tuple((name, label) for name, label in place.labels.items() if name != axis)
            for place in findings.study.places()
        )
        for rest in others:
            for metric in shown_metrics(findings):
                lines = [each for each in _lines(findings, axis, rest, metric) if each.dots]
                if not lines:
                    continue
                where = ", ".join(f"{axis_name(name)} {label}" for name, label in rest)
                title = ", ".join(filter(None, [f"{_name(metric)} over {axis_name(axis)}", where]))
                name = _slug("-".join(["over", axis, *(label for _, label in rest), metric]))
                drawing = _draw_lines(name, title, lines, axis_name(axis), f"{_name(metric)} (%)")
                placed.append(sources.place(title, drawing, f"Means of the final runs. {_INTERVAL}", [file]))
    return placed


def _lines(findings: Findings, axis: str, rest: tuple[tuple[str, str], ...], metric: str) -> list[_Line]:
    lines: dict[str, _Line] = {}
    for each in findings.cells:
        labels = each.cell.place.labels
        if any(labels[name] != label for name, label in rest):
            continue
        method = each.cell.method
        line = lines.setdefault(method, _Line(method, method_number(findings, method), []))
        if (dot := _dot(each, metric)) is not None:
            line.dots.append((float(labels[axis]), dot))
    return list(lines.values())


def _draw_lines(name: str, label: str, lines: Sequence[_Line], xlabel: str, ylabel: str) -> Drawing:
    """Draw a line for each method, with intervals, side by side where they share a value of the axis."""

    def paint(figure: Figure, look: Look) -> None:
        axes = add_axes(figure)
        ticks = sorted({x for line in lines for x, _ in line.dots})
        geometric = ticks[0] > 0 and ticks[-1] > 4 * ticks[0]
        for place, line in enumerate(lines):
            color = look.color(ROWS[line.number % len(ROWS)])
            shift = (place - (len(lines) - 1) / 2) / max(len(lines), 8)  # from -0.5 to 0.5
            gap = 0.08 * (ticks[-1] - ticks[0] or 1.0)
            x = np.array([tick * 1.16**shift if geometric else tick + gap * shift for tick, _ in line.dots])
            for at, (_, dot) in zip(x, line.dots, strict=True):
                if np.isfinite(dot.low):
                    axes.plot([at, at], [dot.low, dot.high], color=color, linewidth=1.1)
            axes.plot(
                x,
                [dot.value for _, dot in line.dots],
                color=color,
                linestyle=DASHES[line.number % len(DASHES)],
                linewidth=1.3,
                marker=marker_of(line.number),
                markersize=4.2,
                label=line.label,
            )
        if geometric:
            axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        add_legend(axes, look, [line.label for line in lines])

    return Drawing(name, label, paint, height=3.0)


def _at_places(findings: Findings, file: Path, sources: Sources) -> list[Placed]:
    """Return a dot plot for each combination of the axes and each metric."""
    placed = []
    for place in findings.study.places():
        for metric in shown_metrics(findings):
            scored = [(each, dot) for each in findings.at(place.labels) if (dot := _dot(each, metric)) is not None]
            if not scored:
                continue
            title = ", ".join(filter(None, [_name(metric), place.describe()]))
            name = _slug("-".join(["scores", *place.labels.values(), metric]))
            rows = [_Row(each.cell.method, method_number(findings, each.cell.method), dot) for each, dot in scored]
            drawing = _draw_rows(name, title, rows, f"{_name(metric)} (%)")
            read = "Means with 95 % intervals over the seeds; strokes are the seeds."
            placed.append(sources.place(title, drawing, read, [file]))
    return placed


def _grids(findings: Findings, file: Path, sources: Sources) -> list[Placed]:
    """Return a figure of the validation scores of all grid points for each combination of the axes."""
    placed = []
    score = findings.study.settings.score.rpartition("/")[2]
    scale = 100 / 6 if score == "rsum" else 100.0
    for place in findings.study.places():
        rows = []
        for each in findings.at(place.labels):
            means = tuple(scale * point.mean for point in each.choice.points)
            chosen = math.nan if each.choice.chosen is None or not means else means[each.choice.chosen]
            if np.isfinite(means).any():
                number = method_number(findings, each.cell.method)
                rows.append(_Row(each.cell.method, number, Dot(chosen, math.nan, math.nan), means))
        if not rows:
            continue
        title = ", ".join(filter(None, ["Grid points", place.describe()]))
        name = _slug("-".join(["grid", *place.labels.values()]))
        drawing = _draw_rows(name, title, rows, f"validation {_name(score)} (%)")
        read = "Each mark is a point of a method's grid, the mean over the tuning seeds; the filled one was chosen."
        placed.append(sources.place(title, drawing, read, [file]))
    return placed


def _draw_rows(name: str, label: str, rows: Sequence[_Row], xlabel: str) -> Drawing:
    """Draw a line for each method: its score with interval and seeds, and hollow marks."""

    def paint(figure: Figure, look: Look) -> None:
        axes = add_axes(figure)
        for y, row in enumerate(rows):
            color, marker, dot = look.color(ROWS[row.number % len(ROWS)]), marker_of(row.number), row.dot
            axes.plot(row.hollow, [y] * len(row.hollow), marker, color=color, fillstyle="none", markersize=4.6)
            if np.isfinite(dot.low):
                axes.plot([dot.low, dot.high], [y, y], color=color, linewidth=1.5)
            axes.plot(dot.seeds, [y] * len(dot.seeds), "|", color=color, markersize=7, alpha=0.75)
            axes.plot(dot.value, y, marker, color=color, markersize=5.2)
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel(xlabel)

    return Drawing(name, label, paint, height=0.6 + _ROW * len(rows))


def _is_number(label: str) -> bool:
    try:
        return bool(np.isfinite(float(label)))
    except ValueError:
        return False


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).replace(".", "-")
