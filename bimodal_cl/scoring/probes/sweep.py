"""Choose the regularization of a linear probe on validation images, as CLIP's authors do.

Source: Radford et al. 2021, appendix A.3. ``l2`` is searched between 1e-6 and 1e6: first in steps of two decades, then
around the best value so far in steps that are halved until there are 8 to a decade. So 15 of 97 values are tried. The
best value is the one with the highest score on the validation images (top-1 accuracy; mean average precision for images
with several classes). Among equal scores, which the paper does not treat, the lowest cross-entropy decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from bimodal_cl.metrics import mean_average_precision
from bimodal_cl.scoring.probes.logistic import LinearClassifier, LogisticProblem, mean_loss

STEPS_PER_DECADE = 8
_FIRST, _LAST, _COARSE = -6 * STEPS_PER_DECADE, 6 * STEPS_PER_DECADE, 2 * STEPS_PER_DECADE
NUM_FITS = (_LAST - _FIRST) // _COARSE + 1 + 2 * int(math.log2(_COARSE))  # the most


@dataclass(frozen=True)
class Tried:
    """A strength of the regularization that was tried.

    Attributes:
        l2: the strength.
        score: of the validation images, a fraction in [0, 1].
        loss: their mean cross-entropy.
    """

    l2: float
    score: float
    loss: float


@dataclass(frozen=True)
class Sweep:
    """A finished search.

    Attributes:
        best: fitted with the best strength, without the validation images.
        tried: all that was tried, by ascending strength.
    """

    best: LinearClassifier
    tried: list[Tried]


def sweep_l2(
    features: Tensor,
    targets: Tensor,
    val_features: Tensor,
    val_targets: Tensor,
    num_classes: int,
    on_fit: Callable[[], object] = lambda: None,
) -> Sweep:
    """Search for the regularization that is best on validation images.

    Args:
        features: ``[images, dim]``.
        targets: as :func:`bimodal_cl.scoring.probes.logistic.LogisticProblem`.
        val_features: ``[val images, dim]``, at least one.
        val_targets: likewise. An image whose class is ``num_classes`` or above counts as a mistake.
        num_classes: number of classes.
        on_fit: called after each fit, at most ``NUM_FITS`` times.
    """
    problem = LogisticProblem(features, targets, num_classes)
    fits: dict[int, LinearClassifier] = {}
    tried: dict[int, Tried] = {}

    def quality(step: int) -> tuple[float, float, int]:
        if step not in fits:
            # The nearest solution is a good start; the stronger one of two, which converged faster.
            start = fits[min(fits, key=lambda done: (abs(done - step), -done))] if fits else None
            fits[step] = problem.fit(10 ** (step / STEPS_PER_DECADE), start)
            tried[step] = _try(fits[step], val_features, val_targets)
            on_fit()
        return tried[step].score, -tried[step].loss, step

    best = max(range(_LAST, _FIRST - 1, -_COARSE), key=quality)
    step = _COARSE // 2
    while step:
        near = [each for each in (best + step, best, best - step) if _FIRST <= each <= _LAST]
        best = max(near, key=quality)
        step //= 2
    return Sweep(fits[best], [tried[each] for each in sorted(tried)])


def _try(classifier: LinearClassifier, features: Tensor, targets: Tensor) -> Tried:
    logits = classifier.logits(features)
    wanted = targets.cpu()
    if wanted.ndim == 2:
        return Tried(classifier.l2, mean_average_precision(logits, wanted), mean_loss(logits, wanted))
    known = wanted < logits.shape[1]
    hits = int((logits.argmax(dim=1) == wanted).sum())
    return Tried(classifier.l2, hits / len(wanted), mean_loss(logits[known], wanted[known]) if known.any() else 0.0)
