"""CLIP (Radford et al. 2021): softmax cross-entropy of the positive, one learned temperature."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tests.reference.odds import compute_mean_excess
from tests.reference.state import DirectionTerms


def compute_clip_direction(sims: np.ndarray, negatives: Sequence[Sequence[int]], tau: float) -> DirectionTerms:
    """``L_i = -log(exp(s_ii/tau) / (exp(s_ii/tau) + sum_j exp(s_ij/tau)))``; ``dL_i/dz_i`` is one minus that share."""
    losses, coefficients = [], []
    for i, members in enumerate(negatives):
        if not members:
            losses.append(0.0)
            coefficients.append(0.0)
            continue
        positive = math.exp(sims[i, i] / tau)
        others = sum(math.exp(sims[i, j] / tau) for j in members)
        losses.append(math.log1p(others / positive))
        coefficients.append(others / (positive + others))
    return DirectionTerms(losses, coefficients, [tau] * len(losses))


def compute_logit_scale_grad(sims: np.ndarray, negatives: Sequence[Sequence[int]], terms: DirectionTerms) -> float:
    """Gradient of one direction's mean loss in ``log(1 / tau)``.

    With ``r = 1 / tau``, ``dz_i/dr = sum_j p_ij s_ij - s_ii`` and ``dr/dlog r = r``: ``dz_i/dlog r`` is the mean
    excess.
    """
    total = 0.0
    for i, members in enumerate(negatives):
        if members:
            total += terms.coefficients[i] * compute_mean_excess(sims, i, members, terms.taus[i])
    return total / len(negatives)
