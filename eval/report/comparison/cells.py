"""Write the cells of score tables as text: for the page, for Markdown and for CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from bimodal_cl.metrics.seeds import Estimate

from ..scores import markdown_line, metric_name
from .score_tables import SIGNIFICANT, Cell, ComparedScores

METHOD = (
    "Intervals are 95 %: they add the variance between seeds, pooled over the rows that have several, to that of the "
    "test data (bootstrap, 1,000 resamples), with Student's t at Satterthwaite's degrees of freedom. A row of one run "
    "has the test data's part alone: it speaks of that model, not of its recipe. p-values are two-sided and corrected "
    "by Holm's method for all pairs of rows in a column; columns are not corrected for one another."
)
_PER_CENT = 100


def scale_of(metric: str) -> float:
    """Return by what a score is multiplied to be shown: fractions and RSUM in percent points, ranks as they are."""
    return 1.0 if "rank" in metric else _PER_CENT


def digits(metric: str, value: float) -> str:
    """Return a scaled score with one decimal."""
    return f"{scale_of(metric) * value:,.1f}"


def half_width(metric: str, cell: Cell) -> str:
    """Return half the width of a cell's interval, or an empty text where there is none."""
    half = (cell.estimate.high - cell.estimate.low) / 2
    return "" if math.isnan(half) else f"± {digits(metric, half)}"


def signed(metric: str, value: float) -> str:
    """Return a scaled difference with its sign."""
    return f"{scale_of(metric) * value:+,.1f}".replace("-", "−")


def unit_of(metric: str) -> str:
    """Return what a score is given in."""
    return "rank" if "rank" in metric else "points" if metric == "rsum" else "%"


def as_markdown(tables: Sequence[ComparedScores]) -> str:
    """Return the tables as Markdown, the best of a column in bold, with a list of what the marks mean."""
    parts = []
    for table in tables:
        head = ["", "seeds", *(f"{metric_name(each)} ({unit_of(each)})" for each in table.metrics)]
        lines = [markdown_line(head), markdown_line(["---", *["---:"] * (len(head) - 1)])]
        for row in table.rows:
            shown = [_markdown_cell(each, row.cells.get(each)) for each in table.metrics]
            lines.append(markdown_line([row.group.label, str(len(row.files)), *shown]))
        if table.chance:
            levels = [digits(each, table.chance[each]) if each in table.chance else "" for each in table.metrics]
            lines.append(markdown_line(["chance", "", *levels]))
        parts.append("\n".join([f"## {table.title}", "", *lines]))
        if table.differences:
            head = ["difference", *(metric_name(each) for each in table.metrics)]
            lines = [markdown_line(head), markdown_line(["---", *["---:"] * (len(head) - 1)])]
            for one in table.differences:
                cells = [_markdown_difference(each, one.scores.get(each)) for each in table.metrics]
                lines.append(markdown_line([f"{one.first.label} − {one.second.label}", *cells]))
            parts.append("\n".join(lines))
    marks = "**bold**: the best of the column. ↓: below the best with a corrected p < 0.05. \\*: a difference with one."
    return "\n\n".join([*parts, f"{marks}\n\n{METHOD}"]) + "\n"


def as_csv(tables: Sequence[ComparedScores]) -> str:
    """Return every score of every row as CSV, unscaled: fractions, ranks from 1."""
    stream = io.StringIO()
    names = "task dataset row metric seeds mean low high seed_error data_error dof best below_best values files"
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names.split())
    for table in tables:
        for row in table.rows:
            for metric, cell in row.cells.items():
                found = cell.estimate
                numbers = (found.value, found.low, found.high, found.seed_error, found.data_error, found.dof)
                writer.writerow(
                    [
                        *(table.task, table.dataset, row.group.label, metric, len(cell.values)),
                        *("" if math.isnan(each) else repr(each) for each in numbers),
                        *(int(cell.best), int(cell.worse)),
                        " ".join(map(repr, cell.values)),
                        " ".join(str(file.path) for file in row.files),
                    ]
                )
    return stream.getvalue()


def differences_as_csv(tables: Sequence[ComparedScores]) -> str:
    """Return every difference of two rows as CSV, unscaled."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = "task dataset first second metric difference low high p_value p_value_holm dof"
    writer.writerow(names.split())
    for table in tables:
        for one in table.differences:
            for metric, (found, corrected) in one.scores.items():
                numbers = (found.value, found.low, found.high, found.p_value, corrected, found.dof)
                shown = ["" if math.isnan(each) else repr(each) for each in numbers]
                writer.writerow([table.task, table.dataset, one.first.label, one.second.label, metric, *shown])
    return stream.getvalue()


def _markdown_cell(metric: str, cell: Cell | None) -> str:
    if cell is None:
        return ""
    value = digits(metric, cell.estimate.value)
    mean = f"**{value}**" if cell.best else value
    return " ".join(filter(None, [mean, half_width(metric, cell), "↓" if cell.worse else ""]))


def _markdown_difference(metric: str, found: tuple[Estimate, float] | None) -> str:
    """Return a difference with its interval, and a star where its corrected p-value is under 0.05."""
    if found is None:
        return ""
    one, corrected = found
    star = " \\*" if corrected < SIGNIFICANT else ""
    return signed(metric, one.value) + interval_text(metric, one) + star


def interval_text(metric: str, one: Estimate) -> str:
    """Return a difference's interval in brackets; an empty text where there is none."""
    return "" if math.isnan(one.low) else f" [{signed(metric, one.low)}, {signed(metric, one.high)}]"
