"""Classify features by their nearest labelled neighbours, which vote by similarity.

Source: Wu et al. 2018 (InstDisc), section 3.4, as used by Caron et al. 2021 (DINO): among the ``k`` most similar
training images, each votes for its class with the weight ``exp(cosine / tau)``; k = 20 and tau = 0.07.

Training images that tie for the last places among the ``k`` share these places evenly, so the order of the training
images does not matter. Similarities are exact (``bimodal_cl.metrics.similarities``), and weights are rounded to
multiples of ``2**-40`` of the largest one's, so that their sum does not depend on an order either.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bimodal_cl.metrics.similarities import ScaledRows, multiply_rows, scale_rows

K = 20
TAU = 0.07

_BLOCK_ELEMENTS = 2**24  # of similarities in memory
_GRID = 2.0**40


def neighbour_votes(
    train_features: Tensor,
    train_targets: Tensor,
    features: Tensor,
    num_classes: int,
    k: int = K,
    tau: float = TAU,
) -> Tensor:
    """Return the share of the votes that each class gets.

    Args:
        train_features: float32 ``[train images, dim]``, unit norm.
        train_targets: int64 ``[train images]``, the class of each; or ``[train images, classes]``, 1 for every class
            that an image shows, else 0.
        features: float32 ``[images, dim]``, unit norm.
        num_classes: number of classes.
        k: number of neighbours, at most the number of training images.
        tau: temperature, above 0.

    Returns:
        float64 ``[images, classes]`` on the CPU. A row sums to 1, or, with several classes an image, to more or less.

    Raises:
        ValueError: ``k`` or ``tau`` is out of range.
    """
    if not 1 <= k <= len(train_features):
        raise ValueError(f"k={k} must be between 1 and the {len(train_features)} training images")
    if not tau > 0:
        raise ValueError(f"tau={tau} must be above 0")
    candidates = scale_rows(train_features)
    targets = train_targets.to(candidates.coarse.device)
    block = max(1, _BLOCK_ELEMENTS // max(len(train_features), k * num_classes))
    votes = [
        _votes(scale_rows(features[start : start + block]), candidates, targets, num_classes, k, tau)
        for start in range(0, len(features), block)
    ]
    return torch.cat(votes)


def _votes(
    queries: ScaledRows, candidates: ScaledRows, targets: Tensor, num_classes: int, k: int, tau: float
) -> Tensor:
    sims = multiply_rows(queries, candidates)
    values, rows = sims.topk(k, dim=1)
    last = values[:, -1:]
    weights = (((values - values[:, :1]) / tau).exp() * _GRID).round()
    votes = _count(weights, targets[rows], num_classes)
    num_tied, num_places = (sims == last).sum(dim=1), (values == last).sum(dim=1)
    for row in (num_tied > num_places).nonzero().flatten().tolist():  # more images tie than there are places
        tied = (sims[row] == last[row]).nonzero().flatten()
        inside = values[row] > last[row]
        share = weights[row, -1] * num_places[row] / num_tied[row]
        each = torch.cat([weights[row][inside], share.round().expand(len(tied))])
        votes[row] = _count(each[None], targets[torch.cat([rows[row][inside], tied])][None], num_classes)[0]
    return (votes / weights.sum(dim=1, keepdim=True)).cpu()


def _count(weights: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """Sum weights ``[images, neighbours]`` by the neighbours' classes, or over their sets of classes."""
    if targets.ndim == 3:
        return torch.einsum("in,inc->ic", weights, targets.double())
    return weights.new_zeros(len(weights), num_classes).scatter_add_(1, targets, weights)
