"""MACL (Huang et al., ICML 2023): temperature from the alignment, each anchor reweighted by one over ``1 - P_i``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tests.reference.odds import compute_odds
from tests.reference.state import DirectionTerms


def compute_macl_tau(alignment: float, tau_base: float, alpha: float, alignment_base: float) -> float:
    """``tau = tau_base (1 + alpha (A - A_base))``."""
    return tau_base * (1.0 + alpha * (alignment - alignment_base))


def update_alignment(
    table: dict[int, float], ids: Sequence[int], sims: np.ndarray, negatives: Sequence[Sequence[int]], mu: float
) -> None:
    """Move each visited id's alignment towards the mean ``s_ii`` of its occurrences; a first visit takes that mean."""
    for anchor_id in sorted(set(ids)):
        seen = [float(sims[i, i]) for i, other in enumerate(ids) if other == anchor_id and negatives[i]]
        if not seen:
            continue
        mean = sum(seen) / len(seen)
        table[anchor_id] = mean if anchor_id not in table else (1.0 - mu) * table[anchor_id] + mu * mean


def compute_macl_direction(
    sims: np.ndarray, negatives: Sequence[Sequence[int]], taus: Sequence[float], reweight: bool
) -> DirectionTerms:
    """``L_i = V_i * -log P_i`` with ``V_i = 1 / (1 - P_i)`` held constant, or ``-log P_i`` without reweighting."""
    losses, coefficients = [], []
    for i, members in enumerate(negatives):
        if not members:
            losses.append(0.0)
            coefficients.append(0.0)
            continue
        odds = compute_odds(sims, i, members, taus[i])
        one_minus_p = odds / (1.0 + odds)
        weight = 1.0 / one_minus_p if reweight else 1.0
        losses.append(weight * math.log1p(odds))
        coefficients.append(weight * one_minus_p)
    return DirectionTerms(losses, coefficients, list(taus))
