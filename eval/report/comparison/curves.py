"""Overlay what runs logged over their training: the mean over the seeds of each row, with their range."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...trained_run import TrainedRun
from ..figures.curves import Series, draw_curves
from ..figures.look import DASHES, MARKERS, ROWS
from ..scores import metric_name
from ..sources import Placed, Sources
from .groups import Group

_SCORES = {
    "retrieval/image_retrieval_recall@10": "held-out pairs",
    "retrieval/text_retrieval_recall@10": "held-out pairs",
    "zero_shot/acc1": "held-out labelled images",
    "zero_shot/mean_average_precision": "held-out labelled images",
}
_SEEDS = " The line is the mean over the seeds, the band their range."


def overlaid_curves(groups: Sequence[Group], sources: Sources) -> list[Placed]:
    """Return figures of the scores, the temperatures, the alignment, and the losses of rows that share one."""
    runs = [(each, [one.run for one in each.members if one.run is not None]) for each in groups if not each.averaged]
    runs = [(each, found) for each, found in runs if found]
    placed = []
    for key, data in _SCORES.items():
        name = metric_name(key.rpartition("/")[2])
        read = f"{name} on {data} during the training; higher is better.{_note(runs)}"
        slug = key.replace("/", "-").replace("@", "")
        placed.append(
            _overlay(f"curve-{slug}", f"{name} during training", runs, key, f"{name} (%)", read, sources, True)
        )
    read = f"Mean temperature of the pairs of each batch, images.{_note(runs)}"
    placed.append(_overlay("curve-tau", "Temperature", runs, "tau_image", "mean tau (no unit)", read, sources))
    read = f"Mean cosine between an image and its own caption.{_note(runs)}"
    placed.append(_overlay("curve-alignment", "Alignment", runs, "alignment", "mean cosine (−1 to 1)", read, sources))
    by_loss: dict[tuple[str, Any], list[tuple[Group, list[TrainedRun]]]] = {}
    for each, found in runs:
        settings = found[0].config.get("train")
        batch = settings.get("global_batch_size") if isinstance(settings, dict) else None
        by_loss.setdefault((str(found[0].loss["name"]), batch), []).append((each, found))
    for number, ((loss, batch), sharing) in enumerate(by_loss.items()):
        scales = "Losses of other names or batch sizes are on other scales."
        size = "" if batch is None else f", batch size {batch}"
        read = f"The loss {loss}{size}. {scales}{_note(sharing)}"
        placed.append(
            _overlay(f"curve-loss-{number}", f"Loss {loss}", sharing, "loss", "loss (no unit)", read, sources)
        )
    return [each for each in placed if each is not None]


def _note(runs: Sequence[tuple[Group, list[TrainedRun]]]) -> str:
    return _SEEDS if any(len(found) > 1 for _, found in runs) else ""


def _overlay(
    name: str,
    title: str,
    runs: Sequence[tuple[Group, list[TrainedRun]]],
    key: str,
    ylabel: str,
    read: str,
    sources: Sources,
    percent: bool = False,
) -> Placed | None:
    """Place a figure of one value of the log; None where fewer than two steps have it."""
    series: list[Series] = []
    files: list[Path] = []
    for group, found in runs:
        logs = [_values(each, key, percent) for each in found]
        steps = sorted(set.intersection(*(set(log) for log in logs)))
        if len(steps) < 2:
            continue
        values = np.array([[log[step] for step in steps] for log in logs])
        series.append(
            Series(
                group.label,
                np.array(steps, dtype=np.float64),
                values.mean(axis=0),
                ROWS[group.number % len(ROWS)],
                DASHES[group.number % len(DASHES)],
                MARKERS[group.number % len(MARKERS)] if len(steps) <= 30 else "",
                np.stack([values.min(axis=0), values.max(axis=0)]) if len(logs) > 1 else None,
            )
        )
        files += [each.folder.metrics for each in found]
    if not series:
        return None
    return sources.place(title, draw_curves(name, series, ylabel, percent=percent, decades=not percent), read, files)


def _values(run: TrainedRun, key: str, evaluated: bool) -> dict[int, float]:
    lines = run.evaluations if evaluated else run.training
    found = {int(line["step"]): line[key] for line in lines if isinstance(line.get(key), (int, float))}
    return {step: float(value) for step, value in found.items() if np.isfinite(value)}
