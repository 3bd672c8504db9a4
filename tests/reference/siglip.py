"""SigLIP (Zhai et al., ICCV 2023): a logistic loss for every pair, matching or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass
class SigmoidTerms:
    """The loss and its gradients in every similarity, in ``log(1 / tau)`` and in the bias."""

    loss: float
    sims_grad: np.ndarray
    logit_scale_grad: float
    logit_bias_grad: float


def compute_siglip(sims: np.ndarray, negatives: Sequence[Sequence[int]], tau: float, bias: float) -> SigmoidTerms:
    """``-1/B sum_ij log sigmoid(z_ij (s_ij / tau + b))`` with ``z = 1`` for positives and ``-1`` for negatives.

    Pairs that are neither have no term. ``d/dl log(1 + exp(-z l)) = -z / (1 + exp(z l))``.
    """
    num_pairs = len(sims)
    result = SigmoidTerms(0.0, np.zeros_like(sims), 0.0, 0.0)
    for i in range(num_pairs):
        for j, label in [(i, 1.0), *((j, -1.0) for j in negatives[i])]:
            logit = sims[i, j] / tau + bias
            result.loss += math.log1p(math.exp(-label * logit)) / num_pairs
            slope = -label / (1.0 + math.exp(label * logit)) / num_pairs
            result.sims_grad[i, j] += slope / tau
            result.logit_scale_grad += slope * sims[i, j] / tau
            result.logit_bias_grad += slope
    return result
