"""SogCLR (Yuan et al., ICML 2022), iSogCLR (Qiu et al., ICML 2023), RGCL-g (FastCLIP): averaged odds, robust taus."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.reference.odds import compute_mean_excess, compute_odds
from tests.reference.state import AnchorMemory, DirectionTerms
from tests.reference.tau_steps import step_tau


def compute_gamma(gamma: float, schedule: str, warmup: float, progress: float) -> float:
    """Weight of the new value: constant, or a half cosine from 1 to ``gamma`` over the first half of training.

    In a warm-up the weight moves from 1 to that: it is their mean, in which 1 counts for the share that is left.
    """
    if schedule != "constant":
        gamma = gamma + (1.0 - gamma) * 0.5 * (1.0 + math.cos(math.pi * min(2.0 * progress, 1.0)))
    left = max(0.0, (warmup - progress) / warmup) if warmup > 0.0 else 0.0
    return left * 1.0 + (1.0 - left) * gamma


def update_u(memory: AnchorMemory, ids: Sequence[int], odds: Sequence[float | None], gamma: float) -> None:
    """``u <- (1 - gamma) u + gamma g``, ``u <- g`` on a first visit; ``g`` is the mean over an id's occurrences.

    Args:
        odds: ``g_i`` (mean odds over the negatives) of each anchor, None for an anchor without negatives.
    """
    for anchor_id in sorted(set(ids)):
        seen = [g for other, g in zip(ids, odds, strict=True) if other == anchor_id and g is not None]
        if not seen:
            continue
        mean = sum(seen) / len(seen)
        if anchor_id in memory.u:
            memory.u[anchor_id] = (1.0 - gamma) * memory.u[anchor_id] + gamma * mean
        else:
            memory.u[anchor_id] = mean


def compute_sogclr_direction(
    sims: np.ndarray,
    ids: Sequence[int],
    negatives: Sequence[Sequence[int]],
    taus: Sequence[float],
    memory: AnchorMemory,
    gamma: float,
    rho: float,
) -> DirectionTerms:
    """``L_i = tau_i log u_i + tau_i rho`` and ``dL_i/dz_i = tau_i g_i / u_i``, with ``memory.u`` updated here first."""
    mean_odds = [
        compute_odds(sims, i, members, taus[i]) / len(members) if members else None
        for i, members in enumerate(negatives)
    ]
    update_u(memory, ids, mean_odds, gamma)
    losses, coefficients = [], []
    for i, g in enumerate(mean_odds):
        if g is None:
            losses.append(0.0)
            coefficients.append(0.0)
            continue
        u = memory.u[ids[i]]
        losses.append(taus[i] * math.log(u) + taus[i] * rho)
        coefficients.append(taus[i] * g / u)
    return DirectionTerms(losses, coefficients, list(taus))


def compute_tau_grads(
    sims: np.ndarray,
    ids: Sequence[int],
    negatives: Sequence[Sequence[int]],
    taus: Sequence[float],
    memory: AnchorMemory,
    rho: float,
) -> list[float | None]:
    """Derivative of each anchor's robust objective in its temperature, None for an anchor without negatives.

    ``dF/dtau = log u + rho - (1 / u) (1 / n) sum_j exp(d_ij / tau) d_ij / tau`` with ``d_ij = s_ij - s_ii``.
    """
    gradients: list[float | None] = []
    for i, members in enumerate(negatives):
        if not members:
            gradients.append(None)
            continue
        u = memory.u[ids[i]]
        g = compute_odds(sims, i, members, taus[i]) / len(members)
        gradients.append(math.log(u) + rho - g / u * compute_mean_excess(sims, i, members, taus[i]))
    return gradients


def update_taus(
    ids: Sequence[int], gradients: Sequence[float | None], memory: AnchorMemory, hyper: dict[str, Any], eta: float
) -> None:
    """One step of every visited temperature, with the mean of the gradients of its occurrences."""
    for anchor_id in sorted(set(ids)):
        seen = [g for other, g in zip(ids, gradients, strict=True) if other == anchor_id and g is not None]
        if seen:
            step_tau(memory, anchor_id, sum(seen) / len(seen), hyper, eta)
