"""Compute CyCLIP's two terms of cyclic consistency over the global batch, with their gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bimodal_cl.distributed import reduce_sum, world_size

_ROWS = 1024  # of P and Q at a time


class CyclicFunction(torch.autograd.Function):
    """``lambda_in C_in + lambda_cross C_cross`` of the global batch, equal on every rank, from ``[dim, dim]`` matrices.

    With ``P = X - Y`` and ``Q = X + Y`` of the global batch's features, ``S_pp = P'P``, ``S_qq = Q'Q``, ``S_pq = P'Q``:

        XX' - YY' = (PQ' + QP') / 2        C_in    = ( <S_pp, S_qq> + <S_pq, S_pq'> ) / 2B
        XY' - YX' = (PQ' - QP') / 2        C_cross = ( <S_pp, S_qq> - <S_pq, S_pq'> ) / 2B

    since the trace of a product is invariant under cyclic permutation of its factors. Nothing large cancels where pairs
    are aligned: ``P`` is small itself there. With ``a = (lambda_in + lambda_cross) / 2B`` and
    ``b = (lambda_in - lambda_cross) / 2B``:

        dL/dP = 2a P S_qq + 2b Q S_pq      dL/dX = dL/dP + dL/dQ
        dL/dQ = 2a Q S_pp + 2b P S_pq'     dL/dY = dL/dQ - dL/dP

    Time ``O(B dim^2)``, no B x B matrix, ``P`` and ``Q`` a thousand rows at a time. The features pass through, so that
    their gradient from the cross-entropy arrives here and the cyclic one is added to it in place: no second copy.

    **Ranks.** The matrices are sums over pairs: each rank adds its own up, one all-reduce joins them. The gradient
    taken on a rank is that of the sum of all ranks' losses in its own features: the derivative above times the number
    of ranks, each of which reports this value.
    """

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, texts: Tensor, lambda_in: float, lambda_cross: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss of the global batch, and both features unchanged."""
        num_pairs = len(images) * world_size()
        dim = images.shape[1]
        own = images.new_zeros(3, dim, dim)
        for x, y in zip(images.split(_ROWS), texts.split(_ROWS), strict=True):
            p, q = x - y, x + y
            for total, left, right in zip(own, (p, q, p), (p, q, q), strict=True):
                total.addmm_(left.T, right)
        matrices = reduce_sum(own)
        pp, qq, pq = matrices
        ctx.symmetric, ctx.mixed = (
            (lambda_in + lambda_cross) / 2 / num_pairs,
            (lambda_in - lambda_cross) / 2 / num_pairs,
        )
        if num_pairs == 1:  # consistent with itself, without a rounding error
            ctx.symmetric = ctx.mixed = 0.0
        ctx.save_for_backward(images, texts, matrices)
        value = ctx.symmetric * (pp * qq).sum() + ctx.mixed * (pq * pq.T).sum()
        return value, images.view_as(images), texts.view_as(texts)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor, image_gradient: Tensor, text_gradient: Tensor
    ) -> tuple[Tensor, Tensor, None, None]:
        """Add the gradient of the two terms to that of the features."""
        images, texts, matrices = ctx.saved_tensors
        scale = 2 * world_size() * gradient
        pp, qq, pq = (matrices[n] * scale for n in range(3))
        with torch.autocast(images.device.type, enabled=False):  # backward may be called inside of one
            for rows in range(0, len(images), _ROWS):
                here = slice(rows, rows + _ROWS)
                p, q = images[here] - texts[here], images[here] + texts[here]
                of_p = (p @ qq).mul_(ctx.symmetric).addmm_(q, pq, alpha=ctx.mixed)
                of_q = (q @ pp).mul_(ctx.symmetric).addmm_(p, pq.T, alpha=ctx.mixed)
                image_gradient[here] += of_p + of_q
                text_gradient[here] += of_q - of_p
        return image_gradient, text_gradient, None, None
