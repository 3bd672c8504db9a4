"""Turn the ranks or scores of a probe into a result, ready to be written, with its scores on resamples."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..encode import ScoredModel
from ..results import Scored, build_result, percent, percent_in_interval
from ..score_models import Summary
from ..zero_shot.class_scores import ClassScores, chance_levels, describe_classes
from .splits import Encoded, Split

if TYPE_CHECKING:
    from torch import Tensor

    from bimodal_cl.scoring.probes.linear_probe import LabelledPart

PREFIX = "lp_"  # of a linear probe's scores, as in CLIP_benchmark
_SHOWN = {
    "acc1": "top-1",
    "acc5": "top-5",
    "mean_per_class_recall": "mean per class",
    "mean_average_precision": "mean average precision",
}


def score_classes(scores: Tensor, classes: Tensor, test: LabelledPart, classnames: list[str]) -> ClassScores:
    """Score images of one class each.

    Args:
        scores: float64 ``[images, candidates]``.
        classes: int64 ``[candidates]``, the class of each column.
        test: the images.
        classnames: name of each class.
    """
    from bimodal_cl.scoring.classifier import score_classification
    from bimodal_cl.scoring.probes.linear_probe import rank_classes
    from bimodal_cl.scoring.uncertainty import resample_classes

    ranks, predictions = rank_classes(scores, classes, test.targets)
    targets = test.targets.numpy()
    metrics = score_classification(ranks, predictions, targets, len(classes))
    details = describe_classes(ranks, predictions, targets, classnames)
    resampled = resample_classes(ranks, predictions, targets, len(classes), names=classnames)
    return ClassScores(metrics, resampled, chance_levels(metrics, len(classes)), details)


def build_probe_result(
    task: str,
    model: ScoredModel,
    scores: ClassScores,
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
        arguments: ``name``, ``data``, ``precision``, ``classnames``, ``language``.
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
            "image_features": "unit norm",
            "classnames": str(arguments.classnames) if arguments.classnames else "data set",
            "chance": scores.chance,
            "unseen_classes": [train.labelled.classnames[each] for each in unseen],
            "skipped": [line for each in encoded.values() for line in each.skipped],
        },
        language=arguments.language,
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
