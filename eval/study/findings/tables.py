"""Write a study's tables: Markdown for readers, CSV with every number unscaled."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from bimodal_cl.metrics.seeds import Estimate

from ...report.comparison.cells import digits, half_width, interval_text, signed, unit_of
from ...report.comparison.score_tables import SIGNIFICANT, Cell, lower_is_better
from ...report.scores import format_metric, markdown_line, metric_name
from ..choice import Choice, choose
from ..records import Records
from ..runs import Study, describe_point
from .comparisons import CellScores, Comparison, compare_cells, find_pairs, metrics_of, score_cells

_UNKNOWN = Estimate(*[math.nan] * 7)
METHOD = (
    "Scores are means over the seeds. ± is half the width of the 95 % interval over the seeds, with the variance "
    "between seeds pooled over the methods at the same setting (Student's t). **bold**: the best mean of a setting. "
    "Differences are paired by seed: runs of one seed share initialization and the order of the samples. p-values are "
    "of a two-sided paired t-test over the seeds, corrected by Holm's method over all comparisons in the column; \\* "
    "marks p < 0.05. These are about other seeds on the same data. \\*\\* marks differences that keep p < 0.05 where "
    "the chance of other test data is added (bootstrap of the queries, the same for both sides)."
)


@dataclass(frozen=True)
class Findings:
    """What a study found.

    Attributes:
        study: the study.
        cells: scores of all methods at all combinations of the axes.
        comparisons: the tests.
    """

    study: Study
    cells: list[CellScores]
    comparisons: list[Comparison]

    @property
    def metrics(self) -> list[str]:
        """The metrics shown."""
        return metrics_of(self.cells)

    @property
    def data(self) -> str:
        """What the scores are of."""
        test = self.study.settings.test
        return f"test data {test.data}" if test is not None else "validation data"

    def at(self, labels: dict[str, str]) -> list[CellScores]:
        """Return the cells at a combination of the axes."""
        return [each for each in self.cells if each.cell.place.labels == labels]


@dataclass(frozen=True)
class TuningRow:
    """How a cell was tuned: size of its grid, seeds, best and worst validation score, chosen point and its borders."""

    points: int
    seeds: int
    best: str
    worst: str
    chosen: str
    border: str


def collect_findings(study: Study, records: Records) -> Findings:
    """Choose the points, collect the scores and do the tests, of what is done so far."""
    choices = [choose(study, records, cell) for cell in study.cells]
    cells = score_cells(study, records, choices)
    return Findings(study, cells, compare_cells(find_pairs(study), cells))


def as_markdown(findings: Findings) -> str:
    """Return the study as Markdown: scores by setting, tests, grids, notes."""
    parts = [f"# {findings.study.path.stem}: scores on {findings.data}"]
    for place in findings.study.places():
        title = place.describe() or "all methods"
        parts.append(f"## {title[0].upper()}{title[1:]}\n\n{_scores(findings, findings.at(place.labels))}")
    if findings.comparisons:
        parts.append(f"## Differences, paired by seed\n\n{_differences(findings)}")
    parts.append(f"## Tuning\n\n{_tuning(findings)}")
    if lines := notes(findings):
        parts.append("## Notes\n\n" + "\n".join(f"- {each}" for each in lines))
    return "\n\n".join([*parts, METHOD]) + "\n"


def _scores(findings: Findings, cells: Sequence[CellScores]) -> str:
    metrics = findings.metrics
    head = ["method", "chosen", "points", "seeds", *(f"{metric_name(each)} ({unit_of(each)})" for each in metrics)]
    lines = [markdown_line(head), markdown_line(["---", "---", *["---:"] * (len(head) - 2)])]
    best = best_means(cells, metrics)
    for each in cells:
        shown = []
        for metric in metrics:
            one = each.estimates.get(metric)
            text = "" if one is None else digits(metric, one.value)
            text = f"**{text}**" if one is not None and one.value == best.get(metric) else text
            shown.append(" ".join(filter(None, [text, half_interval(metric, one)])))
        lines.append(
            markdown_line(
                [each.cell.method, chosen_text(each.choice), str(len(each.cell.points)), str(len(each.records)), *shown]
            )
        )
    return "\n".join(lines)


def _differences(findings: Findings) -> str:
    head = ["difference", "seeds", *(f"{metric_name(each)}" for each in findings.metrics)]
    lines = [markdown_line(head), markdown_line(["---", *["---:"] * (len(head) - 1)])]
    for each in findings.comparisons:
        shown = [difference_text(metric, each) for metric in findings.metrics]
        lines.append(markdown_line([comparison_name(each), str(len(each.seeds)), *shown]))
    return "\n".join(lines)


def _tuning(findings: Findings) -> str:
    score = findings.study.settings.score
    name = score.rpartition("/")[2]
    head = ["method", "setting", "chosen", "border", "points", "seeds", f"best validation {metric_name(name)}", "worst"]
    lines = [markdown_line(head), markdown_line([*["---"] * 4, *["---:"] * 4])]
    for each in findings.cells:
        row = tuning_row(findings, each)
        texts = [each.cell.method, each.cell.place.describe(), row.chosen, row.border, str(row.points), str(row.seeds)]
        lines.append(markdown_line([*texts, row.best, row.worst]))
    return "\n".join(lines)


def tuning_row(findings: Findings, each: CellScores) -> TuningRow:
    """Return how a cell was tuned."""
    name = findings.study.settings.score.rpartition("/")[2]
    means = [point.mean for point in each.choice.points if not math.isnan(point.mean)]
    return TuningRow(
        points=len(each.cell.points),
        seeds=len(findings.study.settings.tune.seeds) if each.choice.points else 0,
        best=format_metric(name, max(means)) if means else "",
        worst=format_metric(name, min(means)) if means else "",
        chosen=chosen_text(each.choice),
        border=", ".join(each.choice.at_border()),
    )


def notes(findings: Findings) -> list[str]:
    """Return what a reader must know: grids of unequal size, choices on a border, failed and missing runs."""
    lines = []
    unequal: dict[str, list[str]] = {}
    for place in findings.study.places():
        sizes = {each.cell.method: len(each.cell.points) for each in findings.at(place.labels)}
        if len(set(sizes.values())) > 1:
            counts = ", ".join(f"{name} {size}" for name, size in sizes.items())
            unequal.setdefault(counts, []).append(place.describe())
    for counts, at in unequal.items():
        lines.append(f"The grids differ in size, so the methods are not tuned equally: {counts}{_at(at)}.")
    borders = sum(bool(each.choice.at_border()) for each in findings.cells)
    if borders:
        chosen = sum(bool(each.choice.at_border(least=3)) for each in findings.cells)
        lines.append(
            f"{borders} of {len(findings.cells)} chosen points lie on the border of their grid, see Tuning: beyond it "
            f"may be better ones. Of two values each is on a border; with three or more it is {chosen}."
        )
    failed: dict[str, list[str]] = {}
    for each in findings.cells:
        for point, score in zip(each.cell.points, each.choice.points, strict=False):
            if score.failed:
                what = f"{each.cell.method}: the point {describe_point(point)} failed"
                failed.setdefault(f"{what}: {score.failed}", []).append(each.cell.place.describe())
        for reason in each.failed:
            failed.setdefault(f"{each.cell.method}: a final run failed: {reason}", []).append(
                each.cell.place.describe()
            )
    lines += [f"{what}{_at(at)}" for what, at in failed.items()]
    missing = sum(each.missing + sum(point.missing for point in each.choice.points) for each in findings.cells)
    return [*lines, f"{missing} runs are yet to be done."] if missing else lines


def _at(places: Sequence[str]) -> str:
    """Return places in brackets; "" where a study has one alone."""
    return f" ({'; '.join(places)})" if any(places) else ""


def chosen_text(choice: Choice) -> str:
    """Return the chosen point in words."""
    if choice.chosen is None:
        return "none: every point failed" if choice.done else "not chosen yet"
    return describe_point(choice.cell.points[choice.chosen])


def comparison_name(one: Comparison, of_setting: bool = False) -> str:
    """Return the name of a difference; cells of one setting share its words, or have none where a heading says them."""
    first, second = one.first, one.second
    if first.place.labels == second.place.labels:
        setting = "" if of_setting else first.place.describe()
        return ", ".join(filter(None, [f"{first.method} − {second.method}", setting]))
    return f"{first.describe()} − {second.describe()}"


def half_interval(metric: str, one: Estimate | None) -> str:
    """Return half the width of an interval with its sign; "" where there is none."""
    return "" if one is None else half_width(metric, Cell(one, ()))


def difference_text(metric: str, each: Comparison) -> str:
    """Return a difference with interval, corrected p-value and stars."""
    if metric not in each.scores:
        return ""
    one, corrected = each.scores[metric]
    parts = [signed(metric, one.value) + interval_text(metric, one), p_text(corrected), stars(metric, each)]
    return " ".join(filter(None, parts)).replace("*", "\\*")


def p_text(corrected: float) -> str:
    """Return a p-value; "" where it is not known."""
    return "" if math.isnan(corrected) else "p < 0.001" if corrected < 0.001 else f"p = {corrected:.3f}"


def stars(metric: str, each: Comparison) -> str:
    """Return a star for a corrected p-value under 0.05 over the seeds, and a second one if also over the test data."""
    sure = metric in each.scores and each.scores[metric][1] < SIGNIFICANT
    surer = sure and metric in each.with_data and each.with_data[metric][1] < SIGNIFICANT
    return "**" if surer else "*" if sure else ""


def best_means(cells: Sequence[CellScores], metrics: Sequence[str]) -> dict[str, float]:
    """Return the best mean of each metric where the cells have at least two different ones."""
    means = {metric: [each.estimates[metric].value for each in cells if metric in each.estimates] for metric in metrics}
    return {
        metric: (min if lower_is_better(metric) else max)(values)
        for metric, values in means.items()
        if len(set(values)) > 1
    }


def as_csv(findings: Findings) -> str:
    """Return every score of every cell as CSV, unscaled, with the values of the seeds."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    axes = list(findings.study.settings.axes)
    names = (
        "chosen points metric seeds mean low high seed_error dof data_error with_data_low with_data_high values runs"
    )
    writer.writerow(["method", *axes, *names.split()])
    for each in findings.cells:
        chosen = "" if each.choice.chosen is None else json.dumps(each.cell.points[each.choice.chosen])
        for metric, one in each.estimates.items():
            wide = each.with_data.get(metric, _UNKNOWN)
            numbers = (one.value, one.low, one.high, one.seed_error, one.dof, wide.data_error, wide.low, wide.high)
            values = each.scores[metric]
            writer.writerow(
                [
                    *(each.cell.method, *each.cell.place.labels.values(), chosen, len(each.cell.points), metric),
                    " ".join(map(str, values)),
                    *("" if math.isnan(number) else repr(number) for number in numbers),
                    " ".join(map(repr, values.values())),
                    " ".join(record["folder"] for record in each.records),
                ]
            )
    return stream.getvalue()


def differences_as_csv(findings: Findings) -> str:
    """Return every difference as CSV, unscaled."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = "first second metric seeds difference low high p_value p_value_holm dof"
    names += " data_error with_data_low with_data_high with_data_p_value with_data_p_value_holm"
    writer.writerow(names.split())
    for each in findings.comparisons:
        for metric, (one, corrected) in each.scores.items():
            wide, p_wide = each.with_data.get(metric, (_UNKNOWN, math.nan))
            numbers = [one.value, one.low, one.high, one.p_value, corrected, one.dof]
            numbers += [wide.data_error, wide.low, wide.high, wide.p_value, p_wide]
            shown = ["" if math.isnan(number) else repr(number) for number in numbers]
            seeds = " ".join(map(str, each.seeds))
            writer.writerow([each.first.describe(), each.second.describe(), metric, seeds, *shown])
    return stream.getvalue()
