"""Negatives, the odds of losing to them, and the gradients of those odds: sums over single pairs, as printed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def list_negatives(image_ids: Sequence[int], text_ids: Sequence[int], mask_repeats: bool) -> list[list[int]]:
    """``N_i``: the pairs that share neither image nor text with pair ``i`` (every other pair without masking)."""
    num_pairs = len(image_ids)
    negatives = []
    for i in range(num_pairs):
        members = []
        for j in range(num_pairs):
            if mask_repeats:
                if image_ids[j] != image_ids[i] and text_ids[j] != text_ids[i]:
                    members.append(j)
            elif j != i:
                members.append(j)
        negatives.append(members)
    return negatives


def compute_odds(sims: np.ndarray, i: int, negatives: Sequence[int], tau: float) -> float:
    """``sum_j exp((s_ij - s_ii) / tau)`` over the negatives: ``exp(z_i)``, and ``n_i g_i``."""
    return sum(math.exp((sims[i, j] - sims[i, i]) / tau) for j in negatives)


def compute_mean_excess(sims: np.ndarray, i: int, negatives: Sequence[int], tau: float) -> float:
    """``e_i``: the mean of ``(s_ij - s_ii) / tau`` over the negatives, weighted by their odds."""
    odds = compute_odds(sims, i, negatives, tau)
    weighted = 0.0
    for j in negatives:
        scaled = (sims[i, j] - sims[i, i]) / tau
        weighted += math.exp(scaled) / odds * scaled
    return weighted


def compute_sims_grad(
    sims: np.ndarray, negatives: Sequence[Sequence[int]], taus: Sequence[float], coefficients: Sequence[float]
) -> np.ndarray:
    """Gradient of ``mean_i c_i z_i`` in every similarity, for ``[anchors, candidates]`` with the positive at ``i, i``.

    ``d odds_i / d s_ij = exp((s_ij - s_ii) / tau_i) / tau_i``, ``d odds_i / d s_ii = -odds_i / tau_i``, and
    ``dz_i = d odds_i / odds_i``. The mean runs over all anchors, those without negatives included.
    """
    num_pairs = len(taus)
    grad = np.zeros((num_pairs, num_pairs))
    for i in range(num_pairs):
        if not negatives[i]:
            continue
        odds = compute_odds(sims, i, negatives[i], taus[i])
        for j in negatives[i]:
            share = math.exp((sims[i, j] - sims[i, i]) / taus[i]) / odds
            grad[i, j] += coefficients[i] * share / taus[i] / num_pairs
        grad[i, i] -= coefficients[i] / taus[i] / num_pairs
    return grad
