"""Compare the cells of a study: means over seeds with intervals, and tests paired by seed.

A mean's interval is that of :mod:`bimodal_cl.metrics.seeds`, with the variance between seeds pooled over the methods at
the same combination of the axes. Two cells are compared by the differences of their runs of equal seeds, which share
initialization and the order of the samples: a paired t-test over the seeds. Its p-values are corrected by Holm's method
over all comparisons of a study, for each score on its own.

Both speak of other seeds on the same test data. Where the outcomes of the queries are kept beside the results, each is
estimated a second time with the bootstrap variance over the test data added, on the same resamples for both sides.
(With two or three seeds that interval may be the narrower one: it has more degrees of freedom.)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.metrics.seeds import Estimate, estimate, holm, pool_variance

from ...report.comparison.members import ResultFile
from ...report.comparison.score_tables import COLUMNS
from ..choice import Choice
from ..records import Record, Records
from ..runs import Cell, Study

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
        samples: the scores on resamples of the test data by seed, by metric; a run without outcomes has none.
        estimates: means with intervals over the seeds, by metric.
        with_data: the same with the test data's part, where it is known.
    """

    choice: Choice
    records: tuple[Record, ...]
    failed: tuple[str, ...]
    missing: int
    scores: dict[str, dict[int, float]]
    samples: dict[int, Mapping[str, np.ndarray]]
    estimates: dict[str, Estimate]
    with_data: dict[str, Estimate]

    def mean_samples(self, metric: str, seeds: Sequence[int]) -> np.ndarray | None:
        """Return the mean over some seeds on resamples of the test data, ``[resamples]``; None where it is unknown."""
        known = [self.samples[seed][metric] for seed in seeds if metric in self.samples.get(seed, {})]
        return np.mean(known, axis=0) if known and len(known) == len(seeds) else None

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
        with_data: the same with the test data's part, where it is known.
    """

    first: Cell
    second: Cell
    seeds: tuple[int, ...]
    scores: dict[str, tuple[Estimate, float]]
    with_data: dict[str, tuple[Estimate, float]]


def score_cells(study: Study, records: Records, choices: Sequence[Choice]) -> list[CellScores]:
    """Collect the final scores of all cells."""
    collected = [_collect(study, records, each) for each in choices]
    for each in collected:
        alike = [other for other in collected if other.cell.place == each.cell.place]
        for metric in metrics_of(collected):
            if metric not in each.scores:
                continue
            between = pool_variance([list(other.scores.get(metric, {}).values()) for other in alike])
            values = each.scores[metric]
            mean = math.fsum(values.values()) / len(values)
            each.estimates[metric] = estimate(mean, [len(values)], between, None)
            samples = each.mean_samples(metric, list(values))
            if samples is not None:
                each.with_data[metric] = estimate(mean, [len(values)], between, float(samples.var(ddof=1)))
    return collected


def metrics_of(scored: Sequence[CellScores]) -> list[str]:
    """Return the metrics that are compared: recalls of retrieval and their sum; all where there are none."""
    known = list(dict.fromkeys(name for each in scored for name in each.scores))
    return [name for name in METRICS if name in known] or known


def _collect(study: Study, records: Records, choice: Choice) -> CellScores:
    runs = [] if choice.chosen is None else study.finals(choice.cell, choice.chosen)
    found = [records.find(each) for each in runs]
    done = tuple(each for each in found if each is not None and "failed" not in each)
    failed = tuple(str(each["failed"]) for each in found if each is not None and "failed" in each)
    scores: dict[str, dict[int, float]] = {}
    for record in done:
        for name, value in _scores_of(study, record).items():
            scores.setdefault(name, {})[record["seed"]] = value
    missing = sum(each is None for each in found) if runs or choice.done else len(study.settings.final.seeds)
    samples = {record["seed"]: _resample(study, record) for record in done}
    return CellScores(choice, done, failed, missing, scores, samples, {}, {})


def _resample(study: Study, record: Record) -> Mapping[str, np.ndarray]:
    """Return a final run's scores on resamples of the test data; nothing where its outcomes are not there."""
    path = study.output / record["folder"] / str(record.get("result"))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if content.get("metrics") != record["test"]:  # scored again, with another checkpoint
        return {}
    resampled = ResultFile(path, content).resampled
    return {} if resampled is None else resampled.samples


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
        everywhere = not any("@" in each for each in sides)  # then both are taken at the same setting
        for one, other in product(first, second):
            if one.key != other.key and (one.place.labels == other.place.labels or not everywhere):
                pairs.append((one, other))
    return list({(one.key, other.key): (one, other) for one, other in pairs}.values())


def _at(study: Study, labels: dict[str, str]) -> list[Cell]:
    return [each for each in study.cells if each.place.labels == labels]


def _named(study: Study, text: str, where: str) -> list[Cell]:
    """Return the cells that ``METHOD`` or ``METHOD@LABEL,LABEL`` names, in the order of the places."""
    name, at, labels = text.partition("@")
    if name not in study.settings.methods:
        raise UserError(f"{where}: no method '{name}'{did_you_mean(name, study.settings.methods)}")
    of_method = [each for each in study.cells if each.method == name]
    wanted = [each.strip() for each in labels.split(",")]
    found = [each for each in of_method if not at or list(each.place.labels.values()) == wanted]
    if not found:
        known = [",".join(each.place.labels.values()) for each in of_method]
        raise UserError(f"{where}: no '{labels}' among the axes{did_you_mean(labels, known)}")
    return found


def compare_cells(pairs: Sequence[tuple[Cell, Cell]], scored: Sequence[CellScores]) -> list[Comparison]:
    """Compare cells by the differences of runs of the same seed, paired t over the seeds, with Holm's correction."""
    by_key = {each.cell.key: each for each in scored}
    found = []
    for first, second in pairs:
        one, other = by_key[first.key], by_key[second.key]
        seeds = tuple(each["seed"] for each in one.records if each["seed"] in {it["seed"] for it in other.records})
        estimates: dict[str, Estimate] = {}
        with_data: dict[str, Estimate] = {}
        shared = [each for each in metrics_of([one, other]) if each in one.scores and each in other.scores]
        for metric in shared if seeds else []:
            differences = [one.scores[metric][seed] - other.scores[metric][seed] for seed in seeds]
            mean, between = math.fsum(differences) / len(seeds), pool_variance([differences])
            estimates[metric] = estimate(mean, [len(seeds)], between, None)
            mine, others = one.mean_samples(metric, seeds), other.mean_samples(metric, seeds)
            if mine is not None and others is not None:
                with_data[metric] = estimate(mean, [len(seeds)], between, float((mine - others).var(ddof=1)))
        if seeds:
            found.append((first, second, seeds, estimates, with_data))
    corrected, corrected_with_data = _correct([each[3] for each in found]), _correct([each[4] for each in found])
    return [
        Comparison(first, second, seeds, corrected[place], corrected_with_data[place])
        for place, (first, second, seeds, *_) in enumerate(found)
    ]


def _correct(found: Sequence[Mapping[str, Estimate]]) -> list[dict[str, tuple[Estimate, float]]]:
    """Add to each estimate its p-value corrected over all comparisons of the same metric."""
    corrected: list[dict[str, tuple[Estimate, float]]] = [{} for _ in found]
    for metric in dict.fromkeys(name for each in found for name in each):
        p_values = holm([each[metric].p_value if metric in each else math.nan for each in found])
        for place, (each, p_value) in enumerate(zip(found, p_values, strict=True)):
            if metric in each:
                corrected[place][metric] = each[metric], p_value
    return corrected
