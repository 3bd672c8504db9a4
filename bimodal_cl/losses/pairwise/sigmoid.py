"""Compute the sigmoid loss of every pair of an image and a text, by tiles, with its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from bimodal_cl.distributed import gather_rows
from bimodal_cl.losses.margin import Negatives
from bimodal_cl.losses.margin.tiles import TileSize, choose_tiling


class SigmoidFunction(torch.autograd.Function):
    """Mean over this process's images of ``softplus(-l_ii) + sum_{j in N_i} softplus(l_ij)``, by tiles.

    With ``l_ij = scale * s_ij + bias``, ``b`` pairs on this process, ``W_ij = sigmoid(l_ij) / b`` for negatives (0 for
    the others) and ``p_i = sigmoid(-l_ii) / b``:

        dL/dx_i = scale * ( sum_j W_ij y_j - p_i y_i )      dL/dscale = sum_ij W_ij s_ij - sum_i p_i s_ii
        dL/dy_j = scale * ( sum_i W_ij x_i - p_j x_j )      dL/dbias  = sum_ij W_ij - sum_i p_i

    Both sums of the features' gradients run over the global batch: a rank computes its own images against all texts and
    all images against its own texts, from features gathered without a gradient. So the features' gradient is that of
    the sum of all ranks' losses; those of scale and bias are of this rank's loss, to be averaged over ranks.
    """

    @staticmethod
    def forward(
        ctx: Any,
        image_features: Tensor,
        text_features: Tensor,
        scale: Tensor,
        bias: Tensor,
        negatives: Negatives,
        tile_size: TileSize,
    ) -> Tensor:
        """Return this process's mean loss, a scalar."""
        images, texts = gather_rows(image_features), gather_rows(text_features)
        batch_size = len(image_features)
        tiling = choose_tiling(tile_size, batch_size, len(images), images)
        total = image_features.new_zeros(())
        for rows in tiling(negatives.own):
            for columns in tiling(negatives.all_rows):
                logits = (images[rows] @ texts[columns].T).mul_(scale).add_(bias)
                negatives.mask_(logits, rows, columns)
                total -= logsigmoid(logits.neg_()).sum()
        own_positives = (images[negatives.own] * texts[negatives.own]).sum(dim=1)
        total -= logsigmoid(own_positives * scale + bias).sum()
        ctx.negatives, ctx.tiling, ctx.batch_size = negatives, tiling, batch_size
        ctx.save_for_backward(images, texts, scale, bias)
        return total / batch_size

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of both features, the scale and the bias."""
        images = ctx.saved_tensors[0]
        share = gather_rows((gradient / ctx.batch_size).expand(ctx.batch_size, 1))

        with torch.autocast(images.device.type, enabled=False):  # backward may be called inside of one
            return SigmoidFunction._backward(ctx, share)

    @staticmethod
    def _backward(ctx: Any, share: Tensor) -> tuple[Tensor | None, ...]:
        images, texts, scale, bias = ctx.saved_tensors
        negatives, own = ctx.negatives, ctx.negatives.own
        everyone = slice(0, len(images))

        def weigh(rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
            """``W`` of one tile, and its similarities."""
            sims = images[rows] @ texts[columns].T
            logits = sims * scale + bias
            negatives.mask_(logits, rows, columns)
            return logits.sigmoid_().mul_(share[rows]), sims

        positives = (images[own] * texts[own]).sum(dim=1, keepdim=True)
        pull = torch.sigmoid(-(positives * scale + bias)) * share[own]
        image_gradient, text_gradient = -pull * texts[own], -pull * images[own]
        scale_gradient, bias_gradient = -(pull * positives).sum(), -pull.sum()
        one_process = own == everyone
        for rows in ctx.tiling(own):
            for columns in ctx.tiling(everyone):
                weights, sims = weigh(rows, columns)
                image_gradient[rows.start - own.start : rows.stop - own.start].addmm_(weights, texts[columns])
                scale_gradient += (sims.mul_(weights)).sum()
                bias_gradient += weights.sum()
                if one_process:  # the same tile holds all images against our own texts
                    text_gradient[columns].addmm_(weights.T, images[rows])
        if not one_process:
            for rows in ctx.tiling(everyone):
                for columns in ctx.tiling(own):
                    weights, _ = weigh(rows, columns)
                    part = text_gradient[columns.start - own.start : columns.stop - own.start]
                    part.addmm_(weights.T, images[rows])
        return image_gradient.mul_(scale), text_gradient.mul_(scale), scale_gradient, bias_gradient, None, None
