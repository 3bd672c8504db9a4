"""Score zero-shot classification of one model on labelled images, and collect recalls by class and confusions."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from ..encode import ScoredModel
from ..results import build_result
from .train_counts import TrainCounts

if TYPE_CHECKING:
    import numpy as np

    from bimodal_cl.data import LabelledImages
    from bimodal_cl.metrics.bootstrap import Statistic
    from bimodal_cl.scoring.classifier import Classifier
    from bimodal_cl.scoring.uncertainty import Resampled
    from bimodal_cl.scoring.zero_shot import LabelledFeatures

_MAX_CONFUSIONS = 200
MAX_MATRIX = 100  # classes


def score_model(
    model: ScoredModel,
    classifier: Classifier,
    encoded: LabelledFeatures,
    labelled: LabelledImages,
    templates: list[str],
    arguments: argparse.Namespace,
    train_counts: TrainCounts | None = None,
) -> tuple[dict[str, Any], Resampled]:
    """Return a model's result on labelled images, ready to be written, and its scores on resamples of them.

    Args:
        model: the model.
        classifier: of the class prompts.
        encoded: the images' features.
        labelled: the images.
        templates: prompts with ``{c}``.
        arguments: ``precision``, ``name``, ``data``, ``split``, ``classnames``, ``class_map``.
        train_counts: training images by class, for scores of frequent and rare classes.
    """
    if encoded.targets.ndim == 2:
        metrics, resampled, chance, details = _score_sets(classifier, encoded, labelled.classnames)
    else:
        tau = math.exp(-float(model.encoder.logit_scale))
        metrics, resampled, chance, details = _score_classes(
            classifier, encoded, labelled.classnames, tau, train_counts
        )
    num_candidates = classifier.num_candidates
    result = build_result(
        task="zeroshot_classification",
        dataset=arguments.name or labelled.name,
        model=model,
        metrics=metrics,
        resampled=resampled,
        data=str(arguments.data),
        counts={
            "num_images": len(encoded.targets),
            "num_classes": len(labelled.classnames),
            **({"num_distinct_classes": num_candidates} if num_candidates < len(labelled.classnames) else {}),
            "num_skipped": len(encoded.skipped),
        },
        language=arguments.language,
        provenance={
            "split": arguments.split,
            "precision": arguments.precision,
            "prompts": {
                "templates": templates,
                "classnames": str(arguments.classnames) if arguments.classnames else "data set",
            },
            "class_of_folder": {
                folder: labelled.classnames[index] for folder, index in labelled.class_of_folder.items()
            },
            **({"class_map": str(arguments.class_map)} if arguments.class_map else {}),
            **({"train_counts": train_counts.provenance()} if train_counts else {}),
            "chance": chance,
            "skipped": encoded.skipped,
        },
        **details,
    )
    return result, resampled


def _score_classes(
    classifier: Classifier,
    encoded: LabelledFeatures,
    classnames: list[str],
    tau: float,
    train_counts: TrainCounts | None,
) -> tuple[dict[str, float], Resampled, dict[str, float], dict[str, Any]]:
    """Return metrics, the same on resamples, their chance levels and details for images of one class each."""
    from bimodal_cl.scoring.calibration import calibrate
    from bimodal_cl.scoring.classifier import classify, score_classification
    from bimodal_cl.scoring.frequency_buckets import FrequencyBuckets
    from bimodal_cl.scoring.uncertainty import resample_classes

    ranks, predictions = classify(classifier, encoded.image_features, encoded.targets)
    targets = encoded.targets.numpy()
    metrics = score_classification(classifier, ranks, predictions, encoded.targets)
    chance = {name: (5 if name == "acc5" else 1) / classifier.num_candidates for name in metrics}
    details: dict[str, Any] = {
        "per_class": recall_by_class(ranks, targets, classnames),
        "confusions": count_confusions(predictions, targets, classnames),
    }
    if len(classnames) <= MAX_MATRIX:
        details["confusion_matrix"] = confusion_matrix(predictions, targets, classnames)
    more: list[Statistic] = []
    calibration = calibrate(classifier, encoded.image_features, encoded.targets, ranks, tau)
    if calibration is not None:
        metrics |= calibration.scores()
        details["calibration"] = calibration.details()
        more.append(calibration.resample)
    if train_counts is not None:
        buckets = FrequencyBuckets.of_images(train_counts.buckets(), targets, ranks == 1)
        metrics |= buckets.scores()
        chance |= dict.fromkeys(buckets.scores(), chance["acc1"])
        more.append(buckets.resample)
        for index, each in zip(sorted(set(targets.tolist())), details["per_class"], strict=True):
            each["train_count"] = train_counts.counts[index]
    resampled = resample_classes(ranks, predictions, targets, classifier.num_candidates, *more, names=classnames)
    return metrics, resampled, chance, details


def _score_sets(
    classifier: Classifier, encoded: LabelledFeatures, classnames: list[str]
) -> tuple[dict[str, float], Resampled, dict[str, float], dict[str, Any]]:
    """Return metrics, the same on resamples, their chance levels and details for images of several classes each."""
    from bimodal_cl.metrics import average_precision, chance_average_precision
    from bimodal_cl.scoring.classifier import class_similarities
    from bimodal_cl.scoring.uncertainty import resample_sets

    sims = class_similarities(classifier, encoded.image_features)
    precisions = average_precision(sims, encoded.targets)
    counts = encoded.targets.sum(dim=0)
    metrics = {"mean_average_precision": math.fsum(precisions) / len(precisions)}
    chance = {"mean_average_precision": chance_average_precision(len(encoded.targets), counts)}
    per_class = [
        {"class": name, "count": count, "average_precision": precision}
        for name, count, precision in zip(classnames, counts.tolist(), precisions.tolist(), strict=True)
    ]
    resampled = resample_sets(sims.numpy(), encoded.targets.numpy())
    return metrics, resampled, chance, {"per_class": per_class}


def recall_by_class(ranks: np.ndarray, targets: np.ndarray, classnames: list[str]) -> list[dict[str, Any]]:
    """Return for every class that has images its name, the number of images and the recall at 1.

    Args:
        ranks: int64 ``[images]``, the rank of each image's class, from 1.
        targets: int64 ``[images]``.
        classnames: name of each class.
    """
    counts, hits = Counter(targets.tolist()), Counter(targets[ranks == 1].tolist())
    return [
        {"class": classnames[index], "count": count, "recall": hits[index] / count}
        for index, count in sorted(counts.items())
    ]


def count_confusions(predictions: np.ndarray, targets: np.ndarray, classnames: list[str]) -> list[dict[str, Any]]:
    """Return the pairs of a class and a wrong prediction with their counts, the most frequent first.

    Args:
        predictions: int64 ``[images]``, the predicted class of each: see ``bimodal_cl.scoring.classifier.classify``.
        targets: int64 ``[images]``.
        classnames: name of each class.
    """
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


def confusion_matrix(predictions: np.ndarray, targets: np.ndarray, classnames: list[str]) -> dict[str, Any]:
    """Return ``classes``, the names, and ``counts``: images by true class (row) and predicted class (column).

    Args:
        predictions: int64 ``[images]``.
        targets: int64 ``[images]``.
        classnames: name of each class.
    """
    import numpy as np

    counts = np.zeros((len(classnames), len(classnames)), dtype=np.int64)
    np.add.at(counts, (targets, predictions), 1)
    return {"classes": classnames, "counts": counts.tolist()}
