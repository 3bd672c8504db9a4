"""The margins written out over one B x B matrix, with PyTorch's own logsumexp and gradient."""

from __future__ import annotations

import torch
from torch import Tensor


def find_negatives(image_ids: Tensor, text_ids: Tensor) -> Tensor:
    """``[batch, batch]``: whether j is a negative of i."""
    return (image_ids[:, None] != image_ids) & (text_ids[:, None] != text_ids)


def compute_by_brute_force(
    x: Tensor, y: Tensor, image_ids: Tensor, text_ids: Tensor, tau_x: Tensor, tau_y: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Margin, slope and number of negatives of the images, then of the texts, ``[batch, 1]`` each."""
    negative = find_negatives(image_ids, text_ids)
    sims = x @ y.T
    results = []
    for direction, tau in ((sims, tau_x), (sims.T, tau_y)):
        margins, slopes = [], []
        for i, own in enumerate(direction):
            odds = ((own - own[i]) / tau[i])[negative[i]]
            alone = odds.numel() == 0
            margins.append((direction.sum() + tau[i].sum()) * 0 if alone else odds.logsumexp(0))
            slopes.append(direction.sum() * 0 if alone else (odds.softmax(0) * odds).sum())
        count = negative.sum(1, keepdim=True).to(sims.dtype)
        results.append([torch.stack(margins)[:, None], torch.stack(slopes).detach()[:, None], count])
    return results[0], results[1]


def weigh(margins: tuple[Tensor, ...], seed: int = 0) -> Tensor:
    """A scalar whose gradient in every margin is another number, negative ones among them."""
    generator = torch.Generator().manual_seed(seed)
    return sum((torch.randn(m.shape, generator=generator, dtype=torch.float64).to(m.dtype) * m).sum() for m in margins)
