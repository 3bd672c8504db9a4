"""Compare the cells of a study: means over seeds with intervals, and tests paired by seed.

A mean's interval is that of :mod:`bimodal_cl.metrics.seeds`, with the variance between seeds pooled over the methods at
the same combination of the axes. Two cells are compared by the differences of their runs of equal seeds, which share
initialization and the order of the samples: a paired t-test over the seeds. Its p-values are corrected by Holm's method
over all comparisons of a study, for each score on its own.

Both speak of other seeds on the same test data. Other test data would differ by more: the intervals in a run's results
say by how much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.metrics.seeds import Estimate, estimate, holm, pool_variance

from ..report.comparison.score_tables import COLUMNS
from .choice import Choice
from .records import Record, Records
from .runs import Cell, Study

METRICS = COLUMNS["zeroshot_retrieval"]


@dataclass(frozen=True)
class CellScores:
    """The final scores of a cell.

    Attributes:
        choice: of its grid.
        records: of its final runs that have scores, in the order of the seeds.
        failed: why its other final runs have none.
        missing: how many final runs are yet to be done.
        scores: by metric, by seed.
        estimates: means with intervals over the seeds, by metric.
    """

    choice: Choice
    records: tuple[Record, ...]
    failed: tuple[str, ...]
    missing: int
    scores: dict[str, dict[int, float]]
    estimates: dict[str, Estimate]

    @property
    def cell(self) -> Cell:
        """The cell."""
        return self.choice.cell


@dataclass(frozen=True)
class Comparison:
    """The first cell minus the second one, over the seeds that both have.

    Attributes:
        first, second: the cells.
        seeds: the common ones.
        scores: the difference by metric, with its p-value corrected over the study.
    """

    first: Cell
    second: Cell
    seeds: tuple[int, ...]
    scores: dict[str, tuple[Estimate, float]]


def score_cells(study: Study, records: Records, choices: Sequence[Choice]) -> list[CellScores]:
    """Collect the final scores of all cells."""
    collected = [_collect(study, records, each) for each in choices]
    metrics = metrics_of(collected)
    scored = []
    for choice, found, failed, missing, scores in collected:
        alike = [each for each in collected if each[0].cell.place == choice.cell.place]
        estimates = {}
        for metric in metrics:
            if metric not in scores:
                continue
            between = pool_variance([list(each[4].get(metric, {}).values()) for each in alike])
            values = list(scores[metric].values())
            estimates[metric] = estimate(math.fsum(values) / len(values), [len(values)], between, None)
        scored.append(CellScores(choice, found, failed, missing, scores, estimates))
    return scored


_Collected = tuple[Choice, tuple[Record, ...], tuple[str, ...], int, dict[str, dict[int, float]]]


def metrics_of(collected: Sequence[_Collected] | Sequence[CellScores]) -> list[str]:
    """Return the metrics that are compared: recalls of retrieval and their sum; all where there are none."""
    scores = [each.scores if isinstance(each, CellScores) else each[4] for each in collected]
    known = list(dict.fromkeys(name for each in scores for name in each))
    return [name for name in METRICS if name in known] or known


def _collect(study: Study, records: Records, choice: Choice) -> _Collected:
    runs = [] if choice.chosen is None else study.finals(choice.cell, choice.chosen)
    found = [records.find(each) for each in runs]
    done = tuple(each for each in found if each is not None and "failed" not in each)
    failed = tuple(str(each["failed"]) for each in found if each is not None and "failed" in each)
    scores: dict[str, dict[int, float]] = {}
    for record in done:
        for name, value in _scores_of(study, record).items():
            scores.setdefault(name, {})[record["seed"]] = value
    missing = sum(each is None for each in found) if runs or choice.done else len(study.settings.final.seeds)
    return choice, done, failed, missing, scores


def _scores_of(study: Study, record: Record) -> dict[str, float]:
    """Return a final run's scores on the test data or, without these, on the validation data of the chosen score."""
    if study.settings.test is not None:
        values = record["test"]
    else:
        task = study.settings.score.partition("/")[0] + "/"
        values = {name.removeprefix(task): value for name, value in record["val"].items() if name.startswith(task)}
    return {name: float(value) for name, value in values.items() if isinstance(value, (int, float))}


def find_pairs(study: Study) -> list[tuple[Cell, Cell]]:
    """Return the cells that the study compares.

    Raises:
        UserError: one of ``compare`` names no cell.
    """
    if study.settings.compare is None:
        return [pair for place in study.places() for pair in combinations(_at(study, place.labels), 2)]
    pairs = []
    for text in study.settings.compare:
        sides = [each.strip() for each in text.split(" vs ")]
        where = f"{study.path}: compare: '{text}'"
        if len(sides) != 2 or not all(sides):
            raise UserError(f"{where}: should be 'METHOD vs METHOD', or 'METHOD@LABEL vs METHOD@LABEL'")
        first, second = (_named(study, each, where) for each in sides)
        if not first or not second:
            continue  # left out by --only
        if len(first) == len(second):
            pairs += [(one, other) for one, other in zip(first, second, strict=True) if one.key != other.key]
        else:
            wide, one = (first, second[0]) if len(second) == 1 else (second, first[0])
            pairs += [(each, one) if wide is first else (one, each) for each in wide if each.key != one.key]
    return list({(one.key, other.key): (one, other) for one, other in pairs}.values())


def _at(study: Study, labels: dict[str, str]) -> list[Cell]:
    return [each for each in study.cells if each.place.labels == labels]


def _named(study: Study, text: str, where: str) -> list[Cell]:
    """Return the cells that ``METHOD`` or ``METHOD@LABEL,LABEL`` names, in the order of the places."""
    name, at, labels = text.partition("@")
    if name not in study.settings.methods:
        raise UserError(f"{where}: no method '{name}'{did_you_mean(name, study.settings.methods)}")
    of_method = [each for each in study.cells if each.method == name]  # none where --only leaves it out
    wanted = [each.strip() for each in labels.split(",")]
    found = [each for each in of_method if not at or list(each.place.labels.values()) == wanted]
    if at and of_method and not found:
        known = [",".join(each.place.labels.values()) for each in of_method]
        raise UserError(f"{where}: no '{labels}' among the axes{did_you_mean(labels, known)}")
    return found


def compare_cells(pairs: Sequence[tuple[Cell, Cell]], scored: Sequence[CellScores]) -> list[Comparison]:
    """Compare cells by the differences of runs of the same seed, paired t over the seeds, with Holm's correction."""
    by_key = {each.cell.key: each for each in scored}
    metrics = metrics_of(scored)
    found: list[tuple[Cell, Cell, tuple[int, ...], dict[str, Estimate]]] = []
    for first, second in pairs:
        one, other = by_key[first.key], by_key[second.key]
        estimates: dict[str, Estimate] = {}
        seeds: tuple[int, ...] = ()
        for metric in metrics:
            mine, others = one.scores.get(metric, {}), other.scores.get(metric, {})
            seeds = tuple(each for each in mine if each in others)
            if not seeds:
                continue
            differences = [mine[seed] - others[seed] for seed in seeds]
            mean = math.fsum(differences) / len(differences)
            estimates[metric] = estimate(mean, [len(differences)], pool_variance([differences]), None)
        if estimates:
            found.append((first, second, seeds, estimates))
    corrected = {
        metric: holm([each[3][metric].p_value if metric in each[3] else math.nan for each in found])
        for metric in metrics
    }
    return [
        Comparison(
            first,
            second,
            seeds,
            {metric: (one, corrected[metric][place]) for metric, one in estimates.items()},
        )
        for place, (first, second, seeds, estimates) in enumerate(found)
    ]
