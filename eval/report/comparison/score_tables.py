"""Tables of scores: a row for each recipe, with intervals, the best of each column, and what is surely below it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from bimodal_cl.metrics.seeds import Estimate, SeedVariance, estimate, holm, pool_variance

from ..scores import TASKS
from .chance import chance_levels
from .groups import Group
from .members import ResultFile

COLUMNS = {
    "zeroshot_retrieval": [
        *(f"{way}_retrieval_recall@{k}" for way in ("image", "text") for k in (1, 5, 10)),
        "rsum",
    ],
}
_LOWER_IS_BETTER = ("rank", "ece")
SIGNIFICANT = 0.05
_NORMAL = 1.959963984540054  # half the width of a 95 % interval over the standard error


@dataclass(frozen=True)
class Cell:
    """A recipe's score.

    Attributes:
        estimate: its mean over the seeds.
        values: of each seed.
        best: whether no other row's mean is better; nothing is marked where rows are of different data.
        worse: whether it is below the best with a corrected p-value under 0.05.
    """

    estimate: Estimate
    values: tuple[float, ...]
    best: bool = False
    worse: bool = False


@dataclass(frozen=True)
class Row:
    """A recipe's scores by metric, and the results that they are from."""

    group: Group
    cells: dict[str, Cell]
    files: tuple[ResultFile, ...]


@dataclass(frozen=True)
class Difference:
    """The first row's scores minus the second's, by metric, each with its corrected p-value."""

    first: Group
    second: Group
    scores: dict[str, tuple[Estimate, float]]


@dataclass(frozen=True)
class ComparedScores:
    """The scores of a task on a data set.

    Attributes:
        task, dataset: as in the results.
        title: for readers.
        metrics: the columns shown.
        rows: of the recipes that were scored.
        differences: of every two rows on the same data.
        chance: levels of chance that are known, by metric; none where rows are of different data.
    """

    task: str
    dataset: str
    title: str
    metrics: list[str]
    rows: list[Row]
    differences: list[Difference]
    chance: dict[str, float]

    @property
    def name(self) -> str:
        """A name for files."""
        return f"{self.task}_{self.dataset}"


def compare_groups(groups: Sequence[Group]) -> list[ComparedScores]:
    """Compare rows by every task and data set of which there are results."""
    keys = dict.fromkeys(key for each in groups for key in each.scored())
    order = list(TASKS)
    ordered = sorted(keys, key=lambda key: order.index(key[0]) if key[0] in order else len(order))
    return [_compare(key, [each for each in groups if each.results(key)]) for key in ordered]


def lower_is_better(metric: str) -> bool:
    """Return whether smaller values of a metric are better."""
    return any(word in metric for word in _LOWER_IS_BETTER)


def same_data(first: ResultFile, second: ResultFile) -> bool | None:
    """Return whether two results are of the same data: by the hash of their queries, else by their counts.

    None: not known, such as for results of other programs.
    """
    one, other = first.resampled, second.resampled
    if one is not None and other is not None:
        return one.data == other.data
    counts, others = (each.provenance.get("counts") for each in (first, second))
    return None if counts is None or others is None else counts == others


def _compare(key: tuple[str, str], groups: list[Group]) -> ComparedScores:
    task, dataset = key
    files = {each.number: each.results(key) for each in groups}
    known = list(dict.fromkeys(name for each in groups for file in files[each.number] for name in file.scores))
    metrics = [name for name in COLUMNS.get(task, known) if name in known] or known
    first = {number: each[0] for number, each in files.items()}
    reference = first[groups[0].number]
    comparable = all(same_data(reference, each) is not False for found in files.values() for each in found)
    cells: dict[int, dict[str, Cell]] = {each.number: {} for each in groups}
    differences: dict[tuple[int, int], dict[str, tuple[Estimate, float]]] = {}
    for metric in known:
        having = [each for each in groups if all(metric in file.scores for file in files[each.number])]
        values = {each.number: tuple(file.scores[metric] for file in files[each.number]) for each in having}
        between = {}
        for each in having:
            alike = [
                other.number for other in having if same_data(first[each.number], first[other.number]) is not False
            ]
            between[each.number] = pool_variance([values[number] for number in alike])
        for number, scores in values.items():
            cells[number][metric] = Cell(_mean(scores, files[number], metric, between[number]), scores)
        pairs = [
            (one.number, other.number)
            for one, other in combinations(having, 2)
            if all(same_data(first[one.number], each) for each in (*files[one.number], *files[other.number]))
        ]
        found = [_difference(values, files, pair, metric, between[pair[0]]) for pair in pairs]
        for pair, one, corrected in zip(pairs, found, holm([each.p_value for each in found]), strict=True):
            differences.setdefault(pair, {})[metric] = one, corrected
        if comparable:
            _mark(metric, cells, {pair: differences[pair][metric][1] for pair in pairs})
    by_number = {each.number: each for each in groups}
    return ComparedScores(
        task=task,
        dataset=dataset,
        title=f"{TASKS.get(task, task or 'Other')}: {dataset}",
        metrics=metrics,
        rows=[Row(each, cells[each.number], tuple(files[each.number])) for each in groups],
        differences=[
            Difference(by_number[one], by_number[other], scores) for (one, other), scores in differences.items()
        ],
        chance=chance_levels(reference) if comparable else {},
    )


def _mean(scores: Sequence[float], files: Sequence[ResultFile], metric: str, between: SeedVariance) -> Estimate:
    return estimate(math.fsum(scores) / len(scores), [len(scores)], between, _data_variance(files, metric))


def _data_variance(files: Sequence[ResultFile], metric: str) -> float | None:
    """Return the variance of the mean of some results over the test data; None where nothing says it."""
    if (samples := _mean_samples(files, metric)) is not None:
        return float(samples.var(ddof=1))
    ends = [file.content.get("intervals", {}).get(metric) for file in files]
    if not all(isinstance(each, list) and len(each) == 2 for each in ends):
        return None
    # The questions are the same for all seeds, so their errors do not average out.
    return float(np.mean([(high - low) / (2 * _NORMAL) for low, high in ends]) ** 2)


def _mean_samples(files: Sequence[ResultFile], metric: str) -> np.ndarray | None:
    """Return the mean of some results on resamples, ``[resamples]``; None unless all have the same data's outcomes."""
    resampled = [each.resampled for each in files]
    known = [each for each in resampled if each is not None and metric in each.samples]
    if len(known) < len(files) or len({each.data for each in known}) != 1:
        return None
    return np.mean([each.samples[metric] for each in known], axis=0)


def _difference(
    values: dict[int, tuple[float, ...]],
    files: dict[int, list[ResultFile]],
    pair: tuple[int, int],
    metric: str,
    between: SeedVariance,
) -> Estimate:
    """Return the difference of two rows, on the same resamples where both have outcomes."""
    first, second = pair
    means = [math.fsum(values[number]) / len(values[number]) for number in pair]
    one, other = _mean_samples(files[first], metric), _mean_samples(files[second], metric)
    variance: float | None
    if one is not None and other is not None:
        variance = float((one - other).var(ddof=1))
    else:
        apart = [_data_variance(files[number], metric) for number in pair]
        variance = None if None in apart else math.fsum(each for each in apart if each is not None)
        if variance is None and not all(len(values[number]) > 1 for number in pair):
            nan = math.nan
            return Estimate(means[0] - means[1], nan, nan, nan, nan, nan, nan)
    return estimate(means[0] - means[1], [len(values[number]) for number in pair], between, variance)


def _mark(metric: str, cells: dict[int, dict[str, Cell]], corrected: dict[tuple[int, int], float]) -> None:
    """Mark the best mean of a column, and those surely below it; nothing where all are equal."""
    means = {number: each[metric].estimate.value for number, each in cells.items() if metric in each}
    if len(set(means.values())) < 2:
        return
    best = (min if lower_is_better(metric) else max)(means.values())
    leaders = [number for number, value in means.items() if value == best]
    for number in means:
        cell = cells[number][metric]
        others = [corrected.get((min(number, each), max(number, each)), math.nan) for each in leaders]
        worse = number not in leaders and any(each < SIGNIFICANT for each in others)
        cells[number][metric] = Cell(cell.estimate, cell.values, best=number in leaders, worse=worse)
