"""The margin's sums and gradient by tiles, in plain PyTorch: every device, float32, float64 and bf16 products.

A tile is multiplied once for both directions, then read a few times while it is in the cache, into buffers that are
allocated once. Five sixths of the time on a CPU are matrix products (B = 4096, dim 512, float32). The rest is left to
separate operations: fusing them with ``torch.compile`` saved 5 % of a step and took 10 s and more to compile; one
exponential for both directions, possible where all temperatures are equal, saved 3 %.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bimodal_cl.losses.margin.products import add_product_, multiply_
from bimodal_cl.losses.margin.sums import GlobalBatch, Pulls, RunningSums, Sums
from bimodal_cl.losses.margin.tiles import Buffers, Tiling


def sum_tiles(batch: GlobalBatch, tiling: Tiling) -> tuple[RunningSums, RunningSums, list[Tensor]]:
    """Sum over this process's images against all texts.

    Returns:
        The sums of the image anchors, complete in this process's rows; those of all text anchors, over this process's
        images only; the masked similarities, tile by tile, if the tiling keeps them.
    """
    image_sums, text_sums = RunningSums(batch.tau_images), RunningSums(batch.tau_texts)
    buffers = Buffers(batch.tau_images)
    kept = []
    for rows in tiling(batch.negatives.own):
        for columns in tiling(batch.negatives.all_rows):
            weights = buffers.take("weights", rows, columns)
            sims = torch.empty_like(weights) if tiling.kept else buffers.take("sims", rows, columns)
            if tiling.kept:
                kept.append(sims)
            compute_sims_(sims, batch, rows, columns)
            image_sums.add_(rows, sum_exponentials(sims, batch.tau_images[rows], 1, weights))
            text_sums.add_(columns, sum_exponentials(sims, batch.tau_texts[columns].T, 0, weights))
    return image_sums, text_sums, kept


def add_gradients_(
    batch: GlobalBatch,
    of_images: Pulls,
    of_texts: Pulls,
    rows: slice,
    columns: slice,
    tiling: Tiling,
    image_gradient: Float[Tensor, "rows dim"] | None,
    text_gradient: Float[Tensor, "columns dim"] | None,
    kept: Sequence[Tensor] = (),
) -> None:
    """Add what the negatives among images ``rows`` and texts ``columns`` contribute to the features' gradients.

    Args:
        of_images: of all image anchors; ``of_texts`` of all text anchors.
        image_gradient: of the images ``rows``; None if not wanted; ``text_gradient`` likewise of the texts.
        kept: the tiles that :func:`sum_tiles` has left for these rows and columns.
    """
    buffers = Buffers(batch.tau_images)
    tiles = iter(kept)
    for some in tiling(rows):
        for others in tiling(columns):
            if kept:
                sims = next(tiles)
            else:
                sims = buffers.take("sims", some, others)
                compute_sims_(sims, batch, some, others)
            weights = weigh_(buffers.take("image", some, others), sims, *of_images.of(some))
            weights += weigh_(buffers.take("text", some, others), sims, *(values.T for values in of_texts.of(others)))
            if image_gradient is not None:
                part = image_gradient[some.start - rows.start : some.stop - rows.start]
                add_product_(part, weights, batch.texts[others])
            if text_gradient is not None:
                part = text_gradient[others.start - columns.start : others.stop - columns.start]
                add_product_(part, weights.T, batch.images[some])


def compute_sims_(out: Tensor, batch: GlobalBatch, rows: slice, columns: slice) -> None:
    """Write one tile of similarities into ``out``, ``MASKED`` where a pair is not a negative."""
    multiply_(out, batch.images[rows], batch.texts[columns].T)
    batch.negatives.mask_(out, rows, columns)


def sum_exponentials(sims: Tensor, tau: Tensor, dim: int, scratch: Tensor) -> Sums:
    """Sum one direction of a tile, whose candidates lie along ``dim``; ``tau`` broadcasts along it."""
    peak = sims.amax(dim, keepdim=True)
    weights = torch.sub(sims, peak, out=scratch).mul_(1 / tau).exp_()
    total = weights.sum(dim)
    weighted = weights.mul_(sims).sum(dim)
    return Sums(peak.view(-1, 1), total[:, None], weighted[:, None])


def weigh_(out: Tensor, sims: Tensor, tau: Tensor, level: Tensor, scale: Tensor) -> Tensor:
    """Write ``scale * exp((sims - level) / tau)`` into ``out``: one direction's ``dL/ds``."""
    return torch.sub(sims, level, out=out).mul_(1 / tau).exp_().mul_(scale)
