"""CyCLIP: cross-entropy, and the demand that images and texts have the same geometry."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from bimodal_cl.distributed import reduce_sum, world_size
from bimodal_cl.losses.clip import CLIPLoss
from bimodal_cl.losses.contrastive import Anchors, require_between
from bimodal_cl.losses.margin import Negatives
from bimodal_cl.losses.margin.products import Products
from bimodal_cl.losses.margin.tiles import TileSize

_ROWS = 1024  # of P and Q at a time


class CyCLIPLoss(CLIPLoss):
    """CyCLIP (Goel et al., NeurIPS 2022): CLIP's loss and two terms of cyclic consistency over the global batch.

        L = L_clip + lambda_in_modal * C_in + lambda_cross_modal * C_cross
        C_in    = 1/B * sum_jk ( <x_j, x_k> - <y_j, y_k> )^2        two images are as similar as their texts
        C_cross = 1/B * sum_jk ( <x_j, y_k> - <x_k, y_j> )^2        image j and text k as similar as image k and text j

    No temperature enters the two terms. They push nothing apart, so there are no negatives in them and ``mask_repeats``
    concerns the cross-entropy alone: pairs that share an image or a caption are to be consistent like all others.

    See :class:`_CyclicFunction` for how they are computed without a similarity of two pairs ever being held.

    Args:
        tau_init: see :class:`CLIPLoss`; so is ``tau_min``.
        lambda_in_modal: weight of ``C_in``, >= 0 (the paper's lambda_1).
        lambda_cross_modal: weight of ``C_cross``, >= 0 (the paper's lambda_2).

    Raises:
        ValueError: a value out of range, or both weights 0, which is ``clip``.
    """

    def __init__(
        self,
        num_images: int | None = None,
        num_texts: int | None = None,
        *,
        tau_init: float = 0.07,
        tau_min: float = 0.01,
        lambda_in_modal: float = 0.25,
        lambda_cross_modal: float = 0.25,
        tile_size: TileSize = "auto",
        mask_repeats: bool = True,
        products: Products = "float32",
    ) -> None:
        super().__init__(
            num_images,
            num_texts,
            tau_init=tau_init,
            tau_min=tau_min,
            tile_size=tile_size,
            mask_repeats=mask_repeats,
            products=products,
        )
        require_between("lambda_in_modal", lambda_in_modal, 0, math.inf)
        require_between("lambda_cross_modal", lambda_cross_modal, 0, math.inf)
        if lambda_in_modal == lambda_cross_modal == 0:
            raise ValueError("lambda_in_modal=0 and lambda_cross_modal=0 leave the loss 'clip': choose that")
        self.lambda_in_modal, self.lambda_cross_modal = lambda_in_modal, lambda_cross_modal

    def local_loss(
        self,
        image_features: Float[Tensor, "batch dim"],
        text_features: Float[Tensor, "batch dim"],
        image: Anchors,
        text: Anchors,
        negatives: Negatives,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "batch 1"], Float[Tensor, "batch 1"]]:
        """Add the cyclic terms to the cross-entropy."""
        weights = self.lambda_in_modal, self.lambda_cross_modal
        cyclic, image_features, text_features = _CyclicFunction.apply(image_features, text_features, *weights)
        local, tau_image, tau_text = super().local_loss(image_features, text_features, image, text, negatives)
        return local + cyclic, tau_image, tau_text


class _CyclicFunction(torch.autograd.Function):
    """``lambda_in C_in + lambda_cross C_cross`` of the global batch, equal on every rank, from ``[dim, dim]`` matrices.

    With ``P = X - Y`` and ``Q = X + Y`` of the global batch's features, ``S_pp = P'P``, ``S_qq = Q'Q``, ``S_pq = P'Q``:

        XX' - YY' = (PQ' + QP') / 2        C_in    = ( <S_pp, S_qq> + <S_pq, S_pq'> ) / 2B
        XY' - YX' = (PQ' - QP') / 2        C_cross = ( <S_pp, S_qq> - <S_pq, S_pq'> ) / 2B

    since the trace of a product does not change when its factors are moved round. Nothing large cancels where pairs
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
