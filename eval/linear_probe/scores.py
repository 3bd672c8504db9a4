"""Turn the ranks or scores of a probe into a result, ready to be written, with its scores on resamples."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..encode import ScoredModel
from ..results import Scored, build_result, percent, percent_in_interval
from ..score_models import Summary
from ..zero_shot.scores import MAX_MATRIX, confusion_matrix, count_confusions, recall_by_class
from .splits import Encoded, Split

if TYPE_CHECKING:
    from torch import Tensor

    from bimodal_cl.scoring.probes.linear_probe import LabelledPart
    from bimodal_cl.scoring.uncertainty import Resampled

PREFIX = "lp_"  # of a linear probe's scores, as in CLIP_benchmark
_SHOWN = {
    "acc1": "top-1",
    "acc5": "top-5",
    "mean_per_class_recall": "mean per class",
    "mean_average_precision": "mean average precision",
}


@dataclass(frozen=True)
class ProbeScores:
    """The scores of one probe on the test images.

    Attributes:
        metrics: fractions in [0, 1].
        resampled: the same on resamples of the test images.
        chance: the level of chance of each.
        details: ``per_class`` and, with one class an image, ``confusions`` and ``confusion_matrix``.
    """

    metrics: dict[str, float]
    resampled: Resampled
    chance: dict[str, float]
    details: dict[str, Any]

    def prefixed(self, prefix: str) -> ProbeScores:
        """Return the scores with a prefix before their names."""
        samples = {prefix + name: values for name, values in self.resampled.samples.items()}
        metrics, chance = ({prefix + name: each[name] for name in each} for each in (self.metrics, self.chance))
        return ProbeScores(metrics, replace(self.resampled, samples=samples, outcomes=None), chance, self.details)


def score_classes(scores: Tensor, classes: Tensor, test: LabelledPart, classnames: list[str]) -> ProbeScores:
    """Score images of one class each.

    Args:
        scores: float64 ``[images, candidates]``.
        classes: int64 ``[candidates]``, the class of each column.
        test: the images.
        classnames: name of each class.
    """
    from bimodal_cl.scoring.probes.linear_probe import rank_classes, score_ranks
    from bimodal_cl.scoring.uncertainty import resample_classes

    ranks, predictions = rank_classes(scores, classes, test.targets)
    targets = test.targets.numpy()
    metrics = score_ranks(ranks, predictions, targets, len(classes))
    details: dict[str, Any] = {
        "per_class": recall_by_class(ranks, targets, classnames),
        "confusions": count_confusions(predictions, targets, classnames),
    }
    if len(classnames) <= MAX_MATRIX:
        details["confusion_matrix"] = confusion_matrix(predictions, targets, classnames)
    resampled = resample_classes(ranks, predictions, targets, len(classes), names=classnames)
    return ProbeScores(metrics, resampled, chance_levels(metrics, len(classes)), details)


def score_label_sets(scores: Tensor, test: LabelledPart, classnames: list[str]) -> ProbeScores:
    """Score images of several classes each by mean average precision.

    Args:
        scores: float64 ``[images, classes]``.
        test: the images.
        classnames: name of each class.
    """
    from bimodal_cl.metrics import average_precision, chance_average_precision
    from bimodal_cl.scoring.uncertainty import resample_sets

    precisions = average_precision(scores, test.targets)
    counts = test.targets.sum(dim=0)
    name = "mean_average_precision"
    chance = {name: chance_average_precision(len(test.targets), counts)}
    per_class = [
        {"class": shown, "count": count, "average_precision": precision}
        for shown, count, precision in zip(classnames, counts.tolist(), precisions.tolist(), strict=True)
    ]
    metrics = {name: math.fsum(precisions) / len(precisions)}
    resampled = resample_sets(scores.numpy(), test.targets.numpy())
    return ProbeScores(metrics, resampled, chance, {"per_class": per_class})


def chance_levels(metrics: Mapping[str, float], num_candidates: int) -> dict[str, float]:
    """Return the level of chance of each score among some candidates."""
    return {name: (5 if "acc5" in name else 1) / num_candidates for name in metrics}


def build_probe_result(
    task: str,
    model: ScoredModel,
    scores: ProbeScores,
    splits: Mapping[str, Split],
    encoded: Mapping[str, Encoded],
    arguments: argparse.Namespace,
    settings: dict[str, Any],
    **more: Any,
) -> dict[str, Any]:
    """Return a probe's result, ready to be written.

    Args:
        task: name of the task.
        model: what was scored.
        scores: its scores.
        splits: ``train``, ``test`` and, where there is one, ``val``.
        encoded: the features of each.
        arguments: ``name``, ``data``, ``precision``, ``classnames``.
        settings: how the probe was trained, under ``probe``.
        more: further keys.
    """
    train, test = splits["train"], splits["test"]
    learned = [encoded[part].part for part in ("train", *(["val"] if settings.get("refit_on_train_and_val") else []))]
    unseen = unseen_classes(learned, encoded["test"].part)
    return build_result(
        task=task,
        dataset=arguments.name or train.labelled.name,
        model=model,
        metrics=scores.metrics,
        resampled=scores.resampled,
        data=str(arguments.data),
        counts={
            "num_images": len(encoded["test"].part.targets),
            "num_classes": len(train.labelled.classnames),
            **{f"num_{part}_images": len(each.part.targets) for part, each in encoded.items() if part != "test"},
            "num_skipped": sum(len(each.skipped) for each in encoded.values()),
        },
        provenance={
            "split": test.name,
            "splits": {part: each.name for part, each in splits.items()},
            "precision": arguments.precision,
            "features": "unit-norm image features",
            "classnames": str(arguments.classnames) if arguments.classnames else "data set",
            "chance": scores.chance,
            "unseen_classes": [train.labelled.classnames[each] for each in unseen],
            "skipped": [line for each in encoded.values() for line in each.skipped],
        },
        probe=settings,
        **scores.details,
        **more,
    )


def unseen_classes(learned: Sequence[LabelledPart], test: LabelledPart) -> list[int]:
    """Return the classes that test images show and no image to learn from does."""
    known = {each for part in learned for each in part.classes().tolist()}
    return sorted(set(test.classes().tolist()) - known)


def summarize(scored: list[Scored], prefix: str, how: str) -> Summary:
    """Return what the terminal shows of some models' results on the same images.

    Args:
        scored: the results.
        prefix: of the scores' names.
        how: what the probes learned from, in words.
    """
    provenance = scored[-1].result["provenance"]
    columns = {prefix + name: shown for name, shown in _SHOWN.items()}
    columns = {name: shown for name, shown in columns.items() if any(name in one.result["metrics"] for one in scored)}
    rows = [[one.label, *(percent_in_interval(one.result, name) for name in columns)] for one in scored]
    rows.append(["chance", *(percent(provenance["chance"].get(name)) for name in columns)])
    return Summary(describe_images(scored, how), ["", *columns.values()], rows, compared=columns)


def describe_images(scored: list[Scored], how: str) -> list[str]:
    """Return the lines above the table: how many images and classes there are, and which are left out or unseen."""
    provenance = scored[-1].result["provenance"]
    counts, unseen = provenance["counts"], provenance["unseen_classes"]
    lines = [f"{counts['num_images']:,} images of {counts['num_classes']:,} classes, {how}"]
    if counts["num_skipped"]:
        lines.append(f"{counts['num_skipped']:,} images could not be read and are left out; the results name them")
    if unseen:
        some = ", ".join(unseen[:5]) + (", ..." if len(unseen) > 5 else "")
        lines.append(f"warning: {len(unseen)} classes have test images but no training images, so they score 0: {some}")
    return lines
