"""Write a study's tables, figures and page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bimodal_cl.cli.progress import format_duration
from bimodal_cl.files.atomic import write_atomically

from ...report.comparison.cells import digits, interval_text, signed, unit_of
from ...report.comparison.content import SYMBOLS
from ...report.comparison.score_tables import SIGNIFICANT
from ...report.export import write_figures, write_texts
from ...report.pages import fill_in
from ...report.scores import format_metric, metric_name
from ...report.sources import Sources
from ..records import Records
from ..runs import describe_point
from ..schedule import plan_runs
from .comparisons import CellScores, Comparison
from .figures import marker_of, method_number, place_figures
from .tables import (
    METHOD,
    Findings,
    as_csv,
    as_markdown,
    best_means,
    chosen_text,
    comparison_name,
    differences_as_csv,
    half_interval,
    notes,
    p_text,
    stars,
    tuning_row,
)

# Of the machine and the schedule, not of the loss.
_NOT_SHOWN = (
    "seconds",
    "data_seconds",
    "data_share",
    "samples_per_second",
    "memory_mib",
    "learning_rate",
)


def write_study(findings: Findings, records: Records) -> list[Path]:
    """Write tables, figures and the page ``study.html``, and return their paths, that of the page last.

    Raises:
        UserError: a file cannot be written.
    """
    folder = findings.study.output
    texts = {
        "table.md": as_markdown(findings),
        "table.csv": as_csv(findings),
        "differences.csv": differences_as_csv(findings),
    }
    written = write_texts(folder, texts)
    placed: list[Sources] = []

    def content(side: int) -> dict[str, Any]:
        placed[:] = [Sources()]
        return {**_describe(findings, records, placed[0]), "sources": placed[0]}

    page = fill_in("study.html.j2", content)
    if placed[0].figures:
        write_figures(str(folder / "plots"), placed[0])
        written.append(folder / "plots")
    write_atomically(folder / "study.html", page)
    return [*written, folder / "study.html"]


def _describe(findings: Findings, records: Records, sources: Sources) -> dict[str, Any]:
    """Return what the page shows."""
    sources.tabulate("Scores, differences, tuning", [records.path])
    settings = findings.study.settings
    runs = {run.folder: records.find(run) for run in plan_runs(findings.study, records).done}
    seconds = sum(record["seconds"] for record in runs.values() if record is not None and "seconds" in record)
    seeds = ", ".join(map(str, settings.final.seeds))
    tests, places = len(findings.comparisons), findings.study.places()
    return {
        "title": findings.study.path.stem,
        "data": findings.data,
        "lead": f"{_seeds(settings.tune.seeds)} for every point of a grid; then, for the best by {settings.score} on "
        f"the validation data, {_seeds(settings.final.seeds).lower()}.",
        "headlines": [
            (
                len({each.cell.method for each in findings.cells}),
                "methods",
                f"at {len(places)} setting{'s' * (len(places) > 1)}",
            ),
            (len(settings.final.seeds), "seeds", seeds),
            (len(runs), "runs", f"{format_duration(seconds)} of work, one thread each"),
            (tests, "comparisons" if tests != 1 else "comparison", "corrected by Holm"),
        ],
        "notes": notes(findings),
        "columns": [(metric_name(each), unit_of(each)) for each in findings.metrics],
        "tables": [_table(findings, findings.at(each.labels), each.describe()) for each in places],
        "method": METHOD.replace("**bold**", "Bold").replace("\\*", "*"),
        "comparisons": _comparisons(findings),
        "verdict": _verdict(findings),
        "score": metric_name(settings.score.rpartition("/")[2]),
        "tuning": [{**_row(findings, each), **vars(tuning_row(findings, each))} for each in findings.cells],
        "points": [row for each in findings.cells for row in _points(findings, each)],
        **_logged(findings),
        **place_figures(findings, records.path, sources),
    }


def _seeds(seeds: Sequence[int]) -> str:
    return f"{'Seed' if len(seeds) == 1 else 'Seeds'} {', '.join(map(str, seeds))}"


def _row(findings: Findings, each: CellScores) -> dict[str, Any]:
    number = method_number(findings, each.cell.method)
    symbol = SYMBOLS[marker_of(number)]
    return {"method": each.cell.method, "setting": each.cell.place.describe(), "number": number, "symbol": symbol}


def _table(findings: Findings, cells: Sequence[CellScores], title: str) -> dict[str, Any]:
    best = best_means(cells, findings.metrics)
    rows = []
    for each in cells:
        shown: list[dict[str, Any] | None] = []
        for metric in findings.metrics:
            one = each.estimates.get(metric)
            if one is None:
                shown.append(None)
                continue
            value, half = digits(metric, one.value), half_interval(metric, one)
            shown.append({"value": value, "half": half, "best": one.value == best.get(metric)})
        row = {"chosen": chosen_text(each.choice), "seeds": len(each.records), "cells": shown}
        rows.append({**_row(findings, each), **row})
    return {"title": title[:1].upper() + title[1:], "rows": rows}


def _comparisons(findings: Findings) -> list[tuple[str, list[tuple[str, int, list[dict[str, Any] | None]]]]]:
    """Return the comparisons by setting, those between settings last."""
    by_setting: dict[str, list[Comparison]] = {}
    for each in findings.comparisons:
        one, other = each.first.place, each.second.place
        within = one.labels == other.labels
        by_setting.setdefault((one.describe() or "all methods") if within else "between settings", []).append(each)
    shown = []
    for setting, found in sorted(by_setting.items(), key=lambda item: item[0] == "between settings"):
        rows = []
        for each in found:
            cells = [_difference(metric, each) for metric in findings.metrics]
            rows.append((comparison_name(each, of_setting=True), len(each.seeds), cells))
        shown.append((setting[:1].upper() + setting[1:], rows))
    return shown


def _difference(metric: str, each: Comparison) -> dict[str, Any] | None:
    if metric not in each.scores:
        return None
    one, corrected = each.scores[metric]
    return {
        "value": signed(metric, one.value),
        "ends": interval_text(metric, one).strip(),
        "p": p_text(corrected),
        "stars": stars(metric, each),
    }


def _verdict(findings: Findings) -> str:
    """Return how many comparisons differ beyond the seeds, by the last metric, which is RSUM where there is one."""
    if not findings.metrics:
        return ""
    metric = findings.metrics[-1]
    tested = [each for each in findings.comparisons if not math.isnan(each.scores.get(metric, (None, math.nan))[1])]
    marks = [stars(metric, each) for each in tested]
    return (
        f"By {metric_name(metric)}, {sum(map(bool, marks))} of {len(tested)} differences have a corrected p < "
        f"{SIGNIFICANT:g} over the seeds, {marks.count('**')} of them also with the chance of other test data."
    )


def _points(findings: Findings, each: CellScores) -> list[dict[str, Any]]:
    name = findings.study.settings.score.rpartition("/")[2]
    rows = []
    for place, (point, score) in enumerate(zip(each.cell.points, each.choice.points, strict=False)):
        value = "failed" if score.failed else "" if math.isnan(score.mean) else format_metric(name, score.mean)
        chosen = place == each.choice.chosen
        rows.append({**_row(findings, each), "point": describe_point(point), "value": value, "chosen": chosen})
    return rows


def _logged(findings: Findings) -> dict[str, Any]:
    """Return the means over the seeds of what the final runs logged last."""
    columns = dict.fromkeys(
        name
        for each in findings.cells
        for record in each.records
        for name, value in record["log"].items()
        if name not in _NOT_SHOWN and isinstance(value, (int, float))
    )
    rows = []
    for each in findings.cells:
        cells = []
        for name in columns:
            values = [record["log"].get(name) for record in each.records]
            known = [value for value in values if isinstance(value, (int, float))]
            cells.append(f"{math.fsum(known) / len(known):.4g}" if known else "")
        if each.records:
            rows.append({**_row(findings, each), "cells": cells})
    return {"logged": rows, "logged_columns": [name.replace("_", " ") for name in columns]}
