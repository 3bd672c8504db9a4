"""Linear probes on a few training images of each class, over several draws of these images.

For ``n`` shots, a probe learns from ``n`` images of each class. Its regularization is chosen on up to ``min(n, 4)``
validation images of each class, as Zhou et al. 2022 (CoOp) do, so that it does not come from many more labels than
those it learns from. The probe does not learn from the validation images.

The score is the mean over the draws. Its interval allows for both sources of chance, in a bootstrap of two crossed
factors: test images and draws are drawn anew together. A bootstrap of few draws is too narrow, so the deviation of the
drawn draws from their mean is stretched, such that alone it would have the width of Student's interval. Fewer shots of
a draw are a part of more, and the draws depend on the seed alone, so figures of two models are paired by draw as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bimodal_cl.metrics.bootstrap import LEVEL, SEED
from bimodal_cl.scoring.classifier import score_classification
from bimodal_cl.scoring.probes.draws import draw_shots
from bimodal_cl.scoring.probes.linear_probe import LabelledPart, rank_classes, train_probe
from bimodal_cl.scoring.uncertainty import Resampled, resample_classes

MOST_VAL_SHOTS = 4


@dataclass(frozen=True)
class DrawScores:
    """The scores of a probe of one draw.

    Attributes:
        scores: ``acc1`` and so on, fractions in [0, 1].
        l2: the chosen regularization.
        resampled: the scores on resamples of the test images.
    """

    scores: dict[str, float]
    l2: float
    resampled: Resampled


def score_shots(
    train: LabelledPart,
    val: LabelledPart,
    test: LabelledPart,
    shots: int,
    num_draws: int,
    seed: int,
    on_draw: Callable[[], object] = lambda: None,
) -> list[DrawScores]:
    """Train and score a probe for each draw of the training images.

    Args:
        train: the images that shots are drawn from.
        val: the images that validation images are drawn from.
        test: the images to score.
        shots: number of images of each class; no class of ``train`` may have fewer.
        num_draws: number of draws, at least 1.
        seed: of the draws.
        on_draw: called after each draw.
    """
    targets = test.targets.numpy()
    found = []
    for draw in range(num_draws):
        few = train.take(draw_shots(train.targets.numpy(), shots, seed, draw))
        few_val = val.take(draw_shots(val.targets.numpy(), min(shots, MOST_VAL_SHOTS), seed, draw, at_most=True))
        probe = train_probe(few, few_val, refit=False)
        ranks, predictions = rank_classes(probe.classifier.logits(test.features), probe.classes, test.targets)
        scores = score_classification(ranks, predictions, targets, len(probe.classes))
        resampled = resample_classes(ranks, predictions, targets, len(probe.classes))
        found.append(DrawScores(scores, probe.classifier.l2, resampled))
        on_draw()
    return found


def mean_scores(draws: Sequence[DrawScores]) -> dict[str, float]:
    """Return the mean of every score over the draws."""
    return {name: math.fsum(each.scores[name] for each in draws) / len(draws) for name in draws[0].scores}


def resample_draws(draws: Sequence[DrawScores], seed: int = SEED) -> Resampled:
    """Return the mean scores on resamples of the test images and of the draws; see the module's docstring."""
    number = len(draws)
    picks = np.random.default_rng(seed).integers(number, size=(len(draws[0].resampled.samples["acc1"]), number))
    samples = {}
    for name in draws[0].scores:
        by_draw = np.stack([each.resampled.samples[name] for each in draws], axis=1)
        mean = by_draw.mean(axis=1)
        deviation = np.take_along_axis(by_draw, picks, axis=1).mean(axis=1) - mean
        samples[name] = np.clip(mean + stretch(number) * deviation, 0.0, 1.0)
    unit = f"images and of {number} draws of the shots" if number > 1 else draws[0].resampled.unit
    return replace(draws[0].resampled, samples=samples, unit=unit, outcomes=None)


def stretch(num_draws: int) -> float:
    """Return by how much a percentile bootstrap of ``num_draws`` values is narrower than Student's interval."""
    if num_draws == 1:
        return 1.0
    from scipy.stats import norm, t

    quantile = (1 + LEVEL) / 2
    return float(t.ppf(quantile, num_draws - 1) / norm.ppf(quantile)) * math.sqrt(num_draws / (num_draws - 1))
