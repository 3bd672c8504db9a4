"""Build the report's tables of scores, one per task, and of a classifier's errors."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bimodal_cl.models.locate.source import AVERAGED

from ..encode import ENGLISH

_NAMES = {
    "acc1": "top-1",
    "acc5": "top-5",
    "mean_per_class_recall": "mean recall per class",
    "mean_average_precision": "mean average precision",
    "image_retrieval": "text → image",
    "text_retrieval": "image → text",
    "rsum": "RSUM",
    "ece": "ECE",
    "ece_fitted": "ECE, fitted temperature",
}
_DIRECTIONS = ("image_retrieval", "text_retrieval")
TASKS = {
    "zeroshot_classification": "Zero-shot classification",
    "zeroshot_retrieval": "Retrieval",
    "image_caption_selection": "Composition",
    "linear_probe": "Linear probe",
    "knn": "Nearest neighbours",
    "few_shot": "Few-shot classification",
}
EMA = "ema/"  # begins the names of the averaged weights' scores in a log
_ROWS = 12


@dataclass(frozen=True)
class ScoreTable:
    """A task's data sets (rows) by metrics (columns).

    Attributes:
        title: the task.
        task: its name in the results.
        columns: the metrics.
        rows: ``(data set, origin, cells)``; a cell is ready to print, "" where a metric is missing.
    """

    title: str
    task: str
    columns: list[str]
    rows: list[tuple[str, str, list[str]]]


@dataclass(frozen=True)
class ClassErrors:
    """A classifier's errors on one data set.

    Attributes:
        dataset: its name.
        num_classes: number of classes that have images.
        num_never_right: number of classes with recall 0.
        confusions: ``(class, predicted, count, share of the class's images or None)``, most frequent first.
        weakest: ``(class, images, recall)``, lowest recall first.
    """

    dataset: str
    num_classes: int
    num_never_right: int
    confusions: list[tuple[str, str, int, float | None]] = field(default_factory=list)
    weakest: list[tuple[str, int, float]] = field(default_factory=list)


def score_tables(results: list[dict[str, Any]]) -> list[ScoreTable]:
    """Collect results into one table per task; fractions are shown in percent, ranks as numbers, with intervals.

    Metrics of retrieval have a direction; each direction is a row of its own, so that both share the columns.
    """
    tables = []
    for task in sorted({str(each.get("task", "")) for each in results}, key=lambda name: (name not in TASKS, name)):
        cells: list[tuple[str, str, dict[str, str]]] = []
        for each in (result for result in results if str(result.get("task", "")) == task):
            dataset, origin = dataset_label(each), _origin(each)
            for direction, metrics in _by_direction(each["metrics"], each.get("intervals")).items():
                cells.append((f"{dataset}, {direction}" if direction else dataset, origin, metrics))
        columns = list(dict.fromkeys(column for *_, metrics in cells for column in metrics))
        rows = [(name, origin, [metrics.get(column, "") for column in columns]) for name, origin, metrics in cells]
        tables.append(ScoreTable(TASKS.get(task, task or "Other"), task, columns, rows))
    return tables


def is_of_step(file: str) -> bool:
    """Return whether a result's file name says a step: it is one of a series over the training, not a final result."""
    return any(tag.startswith("step_") for tag in file.removesuffix(".json").split("~")[1:])


def dataset_in_language(result: dict[str, Any]) -> str:
    """Return a result's data set, with its language where that is not English."""
    name, language = str(result.get("dataset", result.get("file", ""))), result.get("language", ENGLISH)
    return name if language == ENGLISH else f"{name} ({language})"


def dataset_label(result: dict[str, Any]) -> str:
    """Return a result's data set, its language, and whether the averaged weights were scored."""
    name = dataset_in_language(result)
    return f"{name} (EMA)" if (result.get("provenance") or {}).get("weights") == AVERAGED else name


def tables_as_markdown(results: list[dict[str, Any]]) -> str:
    """Return the tables of :func:`score_tables` as Markdown."""
    parts = []
    for table in score_tables(results):
        lines = [["data set", *table.columns], ["---", *["---:"] * len(table.columns)]]
        lines += [[name, *values] for name, _, values in table.rows]
        parts.append("\n".join([f"## {table.title}", "", *map(markdown_line, lines)]))
    return "\n\n".join(parts) + "\n"


def markdown_line(cells: Sequence[str]) -> str:
    """Return a row of a table in Markdown."""
    return "| " + " | ".join(each.replace("|", "\\|") for each in cells) + " |"


def tables_as_csv(results: list[dict[str, Any]]) -> str:
    """Return every score as CSV, unscaled: fractions, ranks from 1."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = "task dataset metric value low high file"
    writer.writerow(names.split())
    for each in results:
        found = each.get("intervals")
        intervals = found if isinstance(found, dict) else {}
        for name, value in each["metrics"].items():
            ends = intervals.get(name) or ["", ""]
            writer.writerow([each.get("task", ""), dataset_label(each), name, value, *ends, each.get("file", "")])
    return stream.getvalue()


def _by_direction(metrics: dict[str, Any], intervals: Any) -> dict[str, dict[str, str]]:
    """Return printed metrics by direction (``""`` for metrics without one), in reading order."""
    found: dict[str, dict[str, str]] = {}
    for name in sorted(metrics, key=_order):
        direction = next((_NAMES[prefix] for prefix in _DIRECTIONS if name.startswith(prefix)), "")
        direction = "both directions" if name == "rsum" else direction
        column = metric_name(name).removeprefix(direction).strip()
        found.setdefault(direction, {})[column] = _cell(metrics, intervals, name)
    return found


def metric_name(name: str) -> str:
    """Return a metric's displayed name: ``image_retrieval_recall@5`` is ``text → image R@5``."""
    known = re.fullmatch(rf"({'|'.join(_DIRECTIONS)})_(.+)", name)
    if known:
        rest = known[2].replace("recall@", "R@").replace("_", " ")
        return f"{_NAMES[known[1]]} {rest}"
    return _NAMES.get(name, name.replace("_", " "))


def format_metric(name: str, value: float) -> str:
    """Return a rank as a number, RSUM in percent points, and every other metric, a fraction, in percent."""
    if "rank" in name:
        return f"{value:,.4g}"
    return f"{100 * value:.1f}" if name == "rsum" else f"{100 * value:.1f} %"


def averaged_note(key: str) -> str:
    """Return what tells the averaged weights' scores from the trained ones', by a key of the log."""
    return " (EMA)" if key.startswith(EMA) else ""


def class_errors(results: list[dict[str, Any]]) -> list[ClassErrors]:
    """Collect recalls by class and confusions from the classification results with one class per image."""
    found = []
    for result in results:
        per_class, confusions = result.get("per_class") or [], result.get("confusions") or []
        if not (per_class or confusions) or any("recall" not in each for each in per_class):
            continue
        sizes: Counter[str] = Counter()  # several classes may share a name
        for each in per_class:
            sizes[each["class"]] += int(each["count"])
        recalls = sorted(
            ((each["class"], int(each["count"]), float(each["recall"])) for each in per_class if each["count"]),
            key=lambda row: (row[2], -row[1]),
        )
        found.append(
            ClassErrors(
                dataset=dataset_label(result),
                num_classes=len(recalls),
                num_never_right=sum(recall == 0 for _, _, recall in recalls),
                confusions=[
                    (
                        one["class"],
                        one["predicted"],
                        int(one["count"]),
                        _share(int(one["count"]), sizes.get(one["class"])),
                    )
                    for one in confusions[:_ROWS]
                ],
                weakest=recalls[:_ROWS],
            )
        )
    return found


def _share(count: int, size: int | None) -> float | None:
    return count / size if size else None


def _order(name: str) -> tuple[int, str, int]:
    group = next((place for place, prefix in enumerate(_NAMES) if name.startswith(prefix)), len(_NAMES))
    number = re.search(r"@(\d+)$", name)
    return group, "" if number else name, int(number[1]) if number else 0


def _cell(metrics: dict[str, Any], intervals: Any, name: str) -> str:
    value = metrics.get(name)
    if not isinstance(value, (int, float)):
        return ""
    ends = intervals.get(name) if isinstance(intervals, dict) else None
    if not isinstance(ends, list) or len(ends) != 2 or not all(isinstance(end, (int, float)) for end in ends):
        return format_metric(name, value)
    low, high = (format_metric(name, end).removesuffix(" %") for end in ends)
    return f"{format_metric(name, value)} [{low}, {high}]"


def _origin(result: dict[str, Any]) -> str:
    provenance = result.get("provenance") or {}
    counts = provenance.get("counts") or {}
    parts = [f"{value:,} {key.removeprefix('num_')}" for key, value in counts.items() if isinstance(value, int)]
    if isinstance(provenance.get("step"), int):
        parts.append(f"step {provenance['step']:,}")
    return " · ".join(parts)
