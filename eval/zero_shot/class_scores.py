"""Scores of labelled images, and what a result says of each class; zero-shot classification and probes share them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from bimodal_cl.scoring.uncertainty import Resampled

_MAX_CONFUSIONS = 200
_MAX_MATRIX = 100  # classes


@dataclass(frozen=True)
class ClassScores:
    """The scores of a model, or of a probe of it, on labelled images.

    Attributes:
        metrics: fractions in [0, 1].
        resampled: the same on resamples of the images.
        chance: the level of chance of each.
        details: what a result says of the classes: ``per_class`` and, with one class an image, ``confusions`` and, for
            up to 100 classes, ``confusion_matrix``.
    """

    metrics: dict[str, float]
    resampled: Resampled
    chance: dict[str, float]
    details: dict[str, Any]

    def prefixed(self, prefix: str) -> ClassScores:
        """Return the scores with a prefix before their names."""
        samples = {prefix + name: values for name, values in self.resampled.samples.items()}
        metrics, chance = ({prefix + name: each[name] for name in each} for each in (self.metrics, self.chance))
        return ClassScores(metrics, replace(self.resampled, samples=samples, outcomes=None), chance, self.details)


def score_label_sets(scores: Tensor, targets: Tensor, classnames: list[str]) -> ClassScores:
    """Score images of several classes each by mean average precision.

    Args:
        scores: float64 ``[images, classes]``.
        targets: int64 ``[images, classes]``, 1 for every class that an image shows, else 0.
        classnames: name of each class.
    """
    from bimodal_cl.metrics import average_precision, chance_average_precision
    from bimodal_cl.scoring.uncertainty import resample_sets

    precisions = average_precision(scores, targets)
    counts = targets.sum(dim=0)
    name = "mean_average_precision"
    chance = {name: chance_average_precision(len(targets), counts)}
    per_class = [
        {"class": shown, "count": count, "average_precision": precision}
        for shown, count, precision in zip(classnames, counts.tolist(), precisions.tolist(), strict=True)
    ]
    metrics = {name: math.fsum(precisions) / len(precisions)}
    resampled = resample_sets(scores.numpy(), targets.numpy())
    return ClassScores(metrics, resampled, chance, {"per_class": per_class})


def describe_classes(
    ranks: np.ndarray, predictions: np.ndarray, targets: np.ndarray, classnames: list[str]
) -> dict[str, Any]:
    """Return the details of images of one class each, see :class:`ClassScores`.

    Args:
        ranks: int64 ``[images]``, the rank of each image's class, from 1.
        predictions: int64 ``[images]``, the predicted class of each: see ``bimodal_cl.scoring.classifier.classify``.
        targets: int64 ``[images]``.
        classnames: name of each class.
    """
    details: dict[str, Any] = {
        "per_class": _recall_by_class(ranks, targets, classnames),
        "confusions": _count_confusions(predictions, targets, classnames),
    }
    if len(classnames) <= _MAX_MATRIX:
        details["confusion_matrix"] = _confusion_matrix(predictions, targets, classnames)
    return details


def chance_levels(metrics: Mapping[str, float], num_candidates: int) -> dict[str, float]:
    """Return the level of chance of each score among some candidates."""
    return {name: (5 if "acc5" in name else 1) / num_candidates for name in metrics}


def _recall_by_class(ranks: np.ndarray, targets: np.ndarray, classnames: list[str]) -> list[dict[str, Any]]:
    """Return for every class that has images its name, the number of images and the recall at 1."""
    counts, hits = Counter(targets.tolist()), Counter(targets[ranks == 1].tolist())
    return [
        {"class": classnames[index], "count": count, "recall": hits[index] / count}
        for index, count in sorted(counts.items())
    ]


def _count_confusions(predictions: np.ndarray, targets: np.ndarray, classnames: list[str]) -> list[dict[str, Any]]:
    """Return the pairs of a class and a wrong prediction with their counts, the most frequent first."""
    wrong = predictions != targets
    # By name: classes of the same name are one candidate.
    pairs = Counter(
        (classnames[target], classnames[prediction])
        for target, prediction in zip(targets[wrong].tolist(), predictions[wrong].tolist(), strict=True)
    )
    ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    return [
        {"class": target, "predicted": prediction, "count": count}
        for (target, prediction), count in ordered[:_MAX_CONFUSIONS]
    ]


def _confusion_matrix(predictions: np.ndarray, targets: np.ndarray, classnames: list[str]) -> dict[str, Any]:
    """Return ``classes``, the names, and ``counts``: images by true class (row) and predicted class (column)."""
    import numpy as np

    counts = np.zeros((len(classnames), len(classnames)), dtype=np.int64)
    np.add.at(counts, (targets, predictions), 1)
    return {"classes": classnames, "counts": counts.tolist()}
