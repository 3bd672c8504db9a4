"""Prepare the page of one run: scores, curves, temperatures, examples, a classifier's errors, settings."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...trained_run import TrainedRun, find_training_data, flat_settings, sections_in_use
from ..classifier_section import confusion_figure, reliability_figure
from ..retrieval_examples import Examples, retrieval_examples
from ..scores import averaged_note, class_errors, dataset_label, format_metric, is_of_step, metric_name, score_tables
from ..sources import Placed, Sources
from ..temperature_section import temperature_section
from .curves import training_curves

if TYPE_CHECKING:
    from bimodal_cl.data.shards.mixture import Mixture

_SECTIONS = ("data", "model", "loss", "optim", "train", "ema")
_HEADLINES = ("acc1", "mean_average_precision", "image_retrieval_recall@5", "text_retrieval_recall@5")
_EXAMPLES = 8


def final_results(run: TrainedRun) -> list[dict[str, Any]]:
    """Return a run's results without those of single steps."""
    return [each for each in run.results if not is_of_step(each["file"])]


def describe_run(run: TrainedRun, sources: Sources, side: int) -> dict[str, Any]:
    """Return what the page of one run shows.

    Args:
        run: the run.
        sources: receives its figures and files.
        side: pixels of a thumbnail's longer side.
    """
    data, why_no_data = find_training_data(run)
    final = final_results(run)
    tables = score_tables(final)
    for table in tables:
        sources.tabulate(table.title, [_path(run, each) for each in final if each.get("task", "") == table.task])
    return {
        "name": run.path.resolve().name,
        "run": run,
        "subtitle": _subtitle(run),
        "headlines": _headlines(run, final),
        "settings": [
            (section, flat_settings(values)) for section, values in sections_in_use(run.config, _SECTIONS).items()
        ],
        "facts": _facts(run, data),
        "tables": tables,
        "curves": [
            sources.place(title, drawing, read, [run.folder.metrics]) for title, drawing, read in training_curves(run)
        ],
        "temperatures": temperature_section(run, sources, side),
        "why_no_data": why_no_data,
        "retrievals": _retrievals(run, final, side),
        "errors": class_errors(final),
        "classifier": _classifier(run, final, sources),
    }


def _path(run: TrainedRun, result: dict[str, Any]) -> Path:
    return run.folder.results / result["file"]


def _retrievals(run: TrainedRun, results: list[dict[str, Any]], side: int) -> list[Examples]:
    found = [retrieval_examples(dataset_label(each), run.path, each, _EXAMPLES, side) for each in results]
    return [each for each in found if each is not None]


def _classifier(run: TrainedRun, results: list[dict[str, Any]], sources: Sources) -> list[Placed]:
    """Return a heat map and reliability diagrams of every classification result that has them."""
    placed = []
    for number, each in enumerate(results):
        file, label = [(_path(run, each), each)], dataset_label(each)
        placed.append(confusion_figure(f"confusions-{number}", f"Confusions: {label}", file, sources))
        for key, note in (("bins", "the model's own temperature"), ("bins_fitted", "a fitted temperature")):
            title = f"Calibration: {label}, {note}"
            rows = [(run.path.resolve().name, 0, file)]
            placed.append(reliability_figure(f"reliability-{number}-{key}", title, rows, key, sources))
    return [each for each in placed if each is not None]


def _subtitle(run: TrainedRun) -> str:
    steps = f"{run.step:,} optimizer steps"
    seen = next((line["samples_seen"] for line in reversed(run.training) if "samples_seen" in line), None)
    return f"{steps}, {seen:,} pairs seen" if isinstance(seen, int) else steps


def _headlines(run: TrainedRun, results: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Return ``(value, metric, data set)`` of the main scores, from results, else from the last evaluation."""
    found = [
        (format_metric(name, result["metrics"][name]), metric_name(name), dataset_label(result))
        for name in _HEADLINES
        for result in results
        if isinstance(result["metrics"].get(name), (int, float))
    ]
    if not found and run.evaluations:
        last = run.evaluations[-1]
        found = [
            (format_metric(metric, value), metric_name(metric), f"during training{averaged_note(key)}")
            for key, value in last.items()
            if (metric := key.rpartition("/")[2]) in _HEADLINES and isinstance(value, (int, float))
        ]
    return found[:4]


def _facts(run: TrainedRun, data: Mixture | None) -> list[tuple[str, str]]:
    """Return facts that are not in the configuration: the data's size, the training time and speed, the checkpoint."""
    facts = []
    if data is not None:
        shards = sum(len(manifest.shards) for manifest in data.manifests)
        size = f"{data.num_images:,} images, {data.num_texts:,} captions, {shards:,} shards"
        facts.append(("training data", size))
    seconds = sum(line.get("seconds", 0.0) for line in run.training)  # each line holds the time since the one before
    if seconds:
        facts.append(("training time", str(timedelta(seconds=round(seconds)))))
    rates = [line["samples_per_second"] for line in run.training if line.get("samples_per_second")]
    if rates:
        facts.append(("speed", f"{np.median(rates):,.0f} pairs per second (median)"))
    if run.checkpoint is not None:
        facts.append(("checkpoint", run.checkpoint.name))
    return facts
