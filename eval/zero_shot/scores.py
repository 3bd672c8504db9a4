"""Score zero-shot classification of one model on labelled images."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from ..encode import ScoredModel
from ..results import build_result
from .class_scores import ClassScores, chance_levels, describe_classes, score_label_sets
from .train_counts import TrainCounts

if TYPE_CHECKING:
    from bimodal_cl.data import LabelledImages
    from bimodal_cl.metrics.bootstrap import Statistic
    from bimodal_cl.scoring.classifier import Classifier
    from bimodal_cl.scoring.uncertainty import Resampled
    from bimodal_cl.scoring.zero_shot import LabelledFeatures


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
    from bimodal_cl.scoring.classifier import class_similarities

    if encoded.targets.ndim == 2:
        sims = class_similarities(classifier, encoded.image_features)
        scores = score_label_sets(sims, encoded.targets, labelled.classnames)
    else:
        tau = math.exp(-float(model.encoder.logit_scale))
        scores = _score_classes(classifier, encoded, labelled.classnames, tau, train_counts)
    num_candidates = classifier.num_candidates
    result = build_result(
        task="zeroshot_classification",
        dataset=arguments.name or labelled.name,
        model=model,
        metrics=scores.metrics,
        resampled=scores.resampled,
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
            "chance": scores.chance,
            "skipped": encoded.skipped,
        },
        **scores.details,
    )
    return result, scores.resampled


def _score_classes(
    classifier: Classifier,
    encoded: LabelledFeatures,
    classnames: list[str],
    tau: float,
    train_counts: TrainCounts | None,
) -> ClassScores:
    """Score images of one class each."""
    from bimodal_cl.scoring.calibration import calibrate
    from bimodal_cl.scoring.classifier import classify, score_classification
    from bimodal_cl.scoring.frequency_buckets import FrequencyBuckets
    from bimodal_cl.scoring.uncertainty import resample_classes

    ranks, predictions = classify(classifier, encoded.image_features, encoded.targets)
    targets = encoded.targets.numpy()
    metrics = score_classification(ranks, predictions, targets, classifier.num_candidates)
    chance = chance_levels(metrics, classifier.num_candidates)
    details = describe_classes(ranks, predictions, targets, classnames)
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
    return ClassScores(metrics, resampled, chance, details)
