"""Prepare the figures of a classifier's errors and calibration from its results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .figures.classifier import draw_confusions, draw_reliability
from .sources import Placed, Sources

Files = Sequence[tuple[Path, dict[str, Any]]]  # results and where they are
Labelled = tuple[str, int, Files]  # a row's label and number, and its results


def confusion_figure(name: str, title: str, files: Files, sources: Sources) -> Placed | None:
    """Return the heat map of the confusions, added up over the seeds; None where no result holds them.

    Args:
        name: of the drawing.
        title: of the figure.
        files: results of one recipe on one data set.
        sources: the page's figures and files.
    """
    found = [(path, matrix) for path, result in files if (matrix := _matrix(result)) is not None]
    if not found or len({matrix[0] for _, matrix in found}) != 1:
        return None
    counts = np.sum([matrix[1] for _, matrix in found], axis=0)
    read = (
        "A row is a class; the shade, and the number where there is room, is the share of it that was taken for each "
        "class, in percent."
    )
    if len(found) > 1:
        read += f" {len(found)} seeds together."
    drawing = draw_confusions(name, list(found[0][1][0]), counts)
    return sources.place(title, drawing, read, [path for path, _ in found])


def reliability_figure(name: str, title: str, rows: Sequence[Labelled], key: str, sources: Sources) -> Placed | None:
    """Return the reliability diagram of some recipes on one data set; None where no result holds the bins.

    Args:
        name: of the drawing.
        title: of the figure.
        rows: the recipes; the bins of seeds are added up.
        key: ``bins`` (the model's own temperature) or ``bins_fitted``.
        sources: the page's figures and files.
    """
    models, paths = [], []
    for label, number, files in rows:
        bins = [(path, found) for path, result in files if (found := _bins(result, key)) is not None]
        if not bins:
            continue
        counts, confidences, accuracies = add_up_bins([each for _, each in bins])
        models.append((label, number, confidences, accuracies, counts))
        paths += [path for path, _ in bins]
    if not models:
        return None
    read = (
        "Images are sorted into bins by the confidence of the prediction; on the dashed diagonal, confidence and "
        "accuracy agree. The size of a point follows the number of images."
    )
    return sources.place(title, draw_reliability(name, models), read, paths)


def _matrix(result: dict[str, Any]) -> tuple[tuple[str, ...], np.ndarray] | None:
    found = result.get("confusion_matrix")
    if not isinstance(found, dict):
        return None
    classes, counts = tuple(found.get("classes") or ()), np.array(found.get("counts") or [])
    return (classes, counts) if counts.shape == (len(classes), len(classes)) and len(classes) > 1 else None


def _bins(result: dict[str, Any], key: str) -> list[dict[str, Any]] | None:
    calibration = result.get("calibration")
    bins = calibration.get(key) if isinstance(calibration, dict) else None
    return bins or None


def add_up_bins(seeds: Sequence[Sequence[dict[str, Any]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return count, mean confidence and accuracy of every bin that has images in any seed; results hold no others."""
    sums: dict[float, np.ndarray] = {}
    for each in (each for bins in seeds for each in bins if each["count"]):
        of_bin = each["count"] * np.array([1.0, each["confidence"], each["accuracy"]])
        sums[each["low"]] = sums.get(each["low"], 0) + of_bin
    counts, confidences, accuracies = np.array([sums[low] for low in sorted(sums)]).T
    return counts, confidences / counts, accuracies / counts
