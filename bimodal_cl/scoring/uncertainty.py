"""Give every score of a task its bootstrap interval, and compare two models on the same data.

Zero-shot classification draws images. Retrieval draws **queries**: images, each with all its captions, while the
candidates that they are ranked among stay those of the data. So its intervals say how much a score depends on which
queries were asked; ranks among more or other candidates would differ systematically.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bimodal_cl.metrics import RankedQueries
from bimodal_cl.metrics.bootstrap import (
    LEVEL,
    RESAMPLES,
    SEED,
    Statistic,
    bootstrap,
    compare_paired,
    percentile_interval,
    weighted_average_precisions,
    weighted_class_recalls,
    weighted_means,
    weighted_medians,
)
from bimodal_cl.scoring.outcomes import CLASSES, RETRIEVAL, Outcomes, hash_queries
from bimodal_cl.scoring.retrieval import RETRIEVAL_KS


@dataclass(frozen=True)
class Resampled:
    """A model's scores on resamples of the data.

    Attributes:
        samples: float64 ``[resamples]`` of every score, by its name.
        unit: what was drawn, in words.
        num_units: how many of them there are.
        data: a hash of what was scored; models with the same one can be compared.
        outcomes: what became of every query, from which ``samples`` follow; None where that would be a large file.
    """

    samples: dict[str, np.ndarray]
    unit: str
    num_units: int
    data: str
    outcomes: Outcomes | None = None

    def intervals(self) -> dict[str, list[float]]:
        """Return ``[low, high]`` of every score."""
        return {name: list(percentile_interval(values)) for name, values in self.samples.items()}

    def method(self) -> dict[str, Any]:
        """Return what the results record about the intervals."""
        return {"method": "percentile bootstrap", "level": LEVEL, "resamples": RESAMPLES, "seed": SEED} | {
            "unit": self.unit,
            "num_units": self.num_units,
        }


def resample_classes(
    ranks: np.ndarray,
    predictions: np.ndarray,
    targets: np.ndarray,
    num_candidates: int,
    *more: Statistic,
    names: Iterable[str] = (),
) -> Resampled:
    """Resample ``acc1``, ``acc5`` (with at least 5 candidates), ``mean_per_class_recall``, and further scores.

    Args:
        ranks: int64 ``[images]``, from 1, the rank of each image's class.
        predictions: int64 ``[images]``.
        targets: int64 ``[images]``.
        num_candidates: the number of candidates that were ranked.
        more: further scores, such as ``bimodal_cl.scoring.calibration.Calibration.resample``.
        names: of the classes; data with other names count as other data.
    """
    ks = [k for k in (1, 5) if k <= num_candidates]
    totals = np.stack([ranks <= k for k in ks], axis=1).astype(np.float64)
    ones, hits = np.ones(len(ranks), dtype=np.int64), predictions == targets

    def scores(weights: np.ndarray) -> dict[str, np.ndarray]:
        means = weighted_means(weights, totals, ones)
        found = {f"acc{k}": means[:, at] for at, k in enumerate(ks)}
        found["mean_per_class_recall"] = weighted_class_recalls(weights, hits, targets)
        for statistic in more:
            found |= statistic(weights)
        return found

    arrays = {
        "ranks": ranks,
        "predictions": predictions,
        "targets": targets,
        "num_candidates": np.array(num_candidates),
    }
    data = hash_queries(targets, names)
    return Resampled(bootstrap(scores, len(ranks)), "images", len(ranks), data, Outcomes(CLASSES, arrays, data))


def resample_sets(sims: np.ndarray, targets: np.ndarray) -> Resampled:
    """Resample ``mean_average_precision`` of multi-label images.

    Args:
        sims: float64 ``[images, classes]``.
        targets: int64 ``[images, classes]``, 1 for every class that an image shows, else 0.
    """

    def scores(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"mean_average_precision": weighted_average_precisions(weights, sims, targets)}

    return Resampled(bootstrap(scores, len(sims)), "images", len(sims), hash_queries(targets))


def resample_retrieval(ranked: RankedQueries, image_of_text: np.ndarray, captions: Iterable[str] = ()) -> Resampled:
    """Resample all scores of ``bimodal_cl.scoring.retrieval.score_retrieval``.

    Args:
        ranked: the outcome of every query.
        image_of_text: int64 ``[texts]``, the image of each caption.
        captions: the texts; data with other captions count as other data.
    """
    _, owners = np.unique(image_of_text, return_inverse=True)  # images without a caption are no query
    num_units = len(ranked.text_ranks)
    num_captions = np.bincount(owners, minlength=num_units)
    image, text = "image_retrieval_", "text_retrieval_"
    # The values of each figure, one a caption or one an image.
    of_captions = {f"{image}recall@{k}": ranked.image_ranks <= k for k in RETRIEVAL_KS} | {
        f"{image}mean_rank": ranked.image_ranks,
        f"{image}mAP@R": ranked.image_ranks == 1,
    }
    of_images = {f"{text}recall@{k}": ranked.text_ranks <= k for k in RETRIEVAL_KS} | {
        f"{text}mean_rank": ranked.text_ranks,
        f"{text}mAP@R": ranked.text_precisions,
    }
    totals = np.stack(
        [np.bincount(owners, weights=values, minlength=num_units) for values in of_captions.values()], axis=1
    )
    values = np.stack([each.astype(np.float64) for each in of_images.values()], axis=1)
    ones = np.ones(num_units, dtype=np.int64)

    def scores(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = dict(zip(of_captions, weighted_means(weights, totals, num_captions).T, strict=True))
        found |= dict(zip(of_images, weighted_means(weights, values, ones).T, strict=True))
        found[f"{image}median_rank"] = weighted_medians(weights[:, owners], ranked.image_ranks)
        found[f"{text}median_rank"] = weighted_medians(weights, ranked.text_ranks)
        recalls = np.stack([found[f"{way}recall@{k}"] for way in (image, text) for k in RETRIEVAL_KS])
        return found | {"rsum": recalls.sum(axis=0)}

    samples = bootstrap(scores, num_units)
    arrays = {name: getattr(ranked, name) for name in ("image_ranks", "text_ranks", "text_precisions")}
    data = hash_queries(image_of_text, captions)
    outcomes = Outcomes(RETRIEVAL, {**arrays, "image_of_text": image_of_text}, data)
    return Resampled(samples, "images with all their captions, as queries", num_units, data, outcomes)


def resample_outcomes(outcomes: Outcomes) -> Resampled:
    """Resample the scores of kept outcomes: the same samples as those of the evaluation that kept them.

    Raises:
        ValueError: a kind or an array that this version does not know.
    """
    arrays = {
        name: each.astype(np.int64) if each.dtype.kind in "iu" else each for name, each in outcomes.arrays.items()
    }
    try:
        if outcomes.kind == CLASSES:
            ranks, predictions, targets = (arrays[name] for name in ("ranks", "predictions", "targets"))
            found = resample_classes(ranks, predictions, targets, int(arrays["num_candidates"]))
            return replace(found, data=outcomes.data, outcomes=outcomes)
        if outcomes.kind == RETRIEVAL:
            ranked = RankedQueries(arrays["image_ranks"], arrays["text_ranks"], arrays["text_precisions"])
            return replace(resample_retrieval(ranked, arrays["image_of_text"]), data=outcomes.data, outcomes=outcomes)
    except KeyError as missing:
        raise ValueError(f"no array {missing} among the outcomes of kind '{outcomes.kind}'") from None
    raise ValueError(f"outcomes of the unknown kind '{outcomes.kind}'")


def compare(
    first: dict[str, float], second: dict[str, float], first_resampled: Resampled, second_resampled: Resampled
) -> dict[str, dict[str, Any]]:
    """Compare two models by every score that both have, on the same resamples.

    Args:
        first: the first model's scores.
        second: the second model's.
        first_resampled: the first model's, on resamples.
        second_resampled: the second model's.

    Returns:
        By score: ``difference`` (first minus second), ``interval``, ``p_value`` and ``distinguishable``; none where
        the models were not scored on the same data.
    """
    if first_resampled.data != second_resampled.data:
        return {}
    compared = {}
    for name, samples in first_resampled.samples.items():
        if name in second_resampled.samples:
            found = compare_paired(first[name], second[name], samples, second_resampled.samples[name])
            compared[name] = {
                "difference": found.difference,
                "interval": [found.low, found.high],
                "p_value": found.p_value,
                "distinguishable": found.distinguishable,
            }
    return compared
