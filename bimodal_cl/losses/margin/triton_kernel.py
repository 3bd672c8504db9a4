"""The margin's sums and gradient by tiles, with fused Triton kernels for CUDA.

One launch does for a tile what a dozen passes do in :mod:`~bimodal_cl.losses.margin.torch_kernel`. A program takes a
block of 128 x 128 similarities. In bf16 it multiplies them itself, so that they never reach memory; in float32 it reads
them where PyTorch's product has put them, which is faster than a product in Triton and follows the user's choice of
TF32.

- Forward: the block's maximum and sums per row and per column. The blocks of a tile are joined by a few operations on
  ``[blocks, anchors]``, so the result does not depend on the order in which programs run.
- Backward: the block of ``dL/ds``, in the type of the products. PyTorch's products turn a tile of it into gradients.

Memory: one tile (two in float32) in addition to the features and gradients.

The kernels have been compared with :mod:`~bimodal_cl.losses.margin.torch_kernel` in Triton's interpreter, which has no
bf16 products, and compiled for compute capabilities 8.0 and 9.0. **They have not been run or timed on a GPU yet.**
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from bimodal_cl.losses.margin.negatives import MASKED
from bimodal_cl.losses.margin.products import add_product_, multiply_
from bimodal_cl.losses.margin.sums import GlobalBatch, Pulls, RunningSums, Sums
from bimodal_cl.losses.margin.tiles import Buffers, Tiling

BLOCK = 128
BLOCK_DIM = 64
NUM_WARPS = 8
MULTIPLIED_IN_BLOCKS = (torch.bfloat16,)  # the types that the kernels multiply; for others PyTorch does
_BLOCK, _BLOCK_DIM, _MASKED = tl.constexpr(BLOCK), tl.constexpr(BLOCK_DIM), tl.constexpr(MASKED)


def sum_tiles(batch: GlobalBatch, tiling: Tiling) -> tuple[RunningSums, RunningSums, list[Tensor]]:
    """Sum over this process's images against all texts; see :func:`~bimodal_cl.losses.margin.torch_kernel.sum_tiles`.

    Nothing is kept, whatever the tiling says.
    """
    image_sums, text_sums = RunningSums(batch.tau_images), RunningSums(batch.tau_texts)
    tiles = Tiles(batch)
    for rows in tiling(batch.negatives.own):
        for columns in tiling(batch.negatives.all_rows):
            num_rows, num_columns = rows.stop - rows.start, columns.stop - columns.start
            tau_rows, tau_columns = batch.tau_images[rows], batch.tau_texts[columns]
            of_rows = tau_rows.new_empty(3, triton.cdiv(num_columns, BLOCK), num_rows)
            of_columns = tau_rows.new_empty(3, triton.cdiv(num_rows, BLOCK), num_columns)
            tiles.launch(_sum_block, rows, columns, tau_rows, tau_columns, of_rows, of_columns)
            image_sums.add_(rows, join_blocks(of_rows, tau_rows))
            text_sums.add_(columns, join_blocks(of_columns, tau_columns))
    return image_sums, text_sums, []


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
    """Add to the features' gradients; see :func:`~bimodal_cl.losses.margin.torch_kernel.add_gradients_`."""
    tiles = Tiles(batch)
    for some in tiling(rows):
        for others in tiling(columns):
            weights = tiles.buffers.take("weights", some, others, batch.images.dtype)
            tiles.launch(_weigh_block, some, others, *of_images.of(some), *of_texts.of(others), weights)
            if image_gradient is not None:
                part = image_gradient[some.start - rows.start : some.stop - rows.start]
                add_product_(part, weights, batch.texts[others])
            if text_gradient is not None:
                part = text_gradient[others.start - columns.start : others.stop - columns.start]
                add_product_(part, weights.T, batch.images[some])


def join_blocks(blocks: Float[Tensor, "3 blocks anchors"], tau: Float[Tensor, "anchors 1"]) -> Sums:
    """Join the sums of the blocks of a tile that hold the same anchors."""
    peaks, totals, weighted = blocks
    peak = peaks.amax(dim=0)
    shrink = torch.exp((peaks - peak) / tau.T)
    return Sums(peak[:, None], (totals * shrink).sum(dim=0)[:, None], (weighted * shrink).sum(dim=0)[:, None])


class Tiles:
    """Launches kernels on one tile after another, with their common operands in the form that they read."""

    def __init__(self, batch: GlobalBatch) -> None:
        self._images, self._texts = (_with_dense_rows(features) for features in (batch.images, batch.texts))
        negatives = batch.negatives
        self._groups = [group.int() for group in (negatives.image_group, negatives.text_group)]
        self.buffers = Buffers(batch.tau_images)

    def launch(self, kernel: Any, rows: slice, columns: slice, *operands: Tensor) -> None:
        """Run a kernel on all blocks of a tile; ``operands`` are its further arguments, contiguous."""
        images, texts = self._images[rows], self._texts[columns]
        sims = None
        if images.dtype not in MULTIPLIED_IN_BLOCKS:
            sims = multiply_(self.buffers.take("sims", rows, columns), images, texts.T)
        num_rows, num_columns = len(images), len(texts)
        groups = [group[anchors] for group in self._groups for anchors in (rows, columns)]
        kernel[(triton.cdiv(num_rows, BLOCK) * triton.cdiv(num_columns, BLOCK),)](
            images,
            texts,
            sims,
            *groups,
            num_rows,
            num_columns,
            images.shape[1],
            images.stride(0),
            texts.stride(0),
            *operands,
            num_warps=NUM_WARPS,
        )


def _with_dense_rows(features: Tensor) -> Tensor:
    return features if features.stride(1) == 1 else features.contiguous()


@triton.jit
@no_type_check
def _sum_block(
    images,
    texts,
    sims,
    image_group_rows,
    image_group_columns,
    text_group_rows,
    text_group_columns,
    num_rows,
    num_columns,
    dim,
    image_stride,
    text_stride,
    tau_rows,
    tau_columns,
    of_rows,
    of_columns,
):
    """Sum a block along its rows into ``of_rows`` ``[3, column blocks, rows]``, and likewise along its columns."""
    row_block, column_block = _place(num_rows, num_columns)
    row, column = row_block * _BLOCK + tl.arange(0, _BLOCK), column_block * _BLOCK + tl.arange(0, _BLOCK)
    in_rows, in_columns = row < num_rows, column < num_columns
    block = _sims_of_block(images, texts, sims, row, column, num_rows, num_columns, dim, image_stride, text_stride)
    # fmt: off
    block = _masked(block, image_group_rows, image_group_columns, text_group_rows, text_group_columns,
                    row, column, num_rows, num_columns)
    # fmt: on

    peak = tl.max(block, 1)
    weights = tl.exp((block - peak[:, None]) / tl.load(tau_rows + row, mask=in_rows, other=1.0)[:, None])
    place = of_rows + column_block * num_rows + row
    size = tl.cdiv(num_columns, _BLOCK) * num_rows
    tl.store(place, peak, mask=in_rows)
    tl.store(place + size, tl.sum(weights, 1), mask=in_rows)
    tl.store(place + 2 * size, tl.sum(weights * block, 1), mask=in_rows)

    peak = tl.max(block, 0)
    weights = tl.exp((block - peak[None, :]) / tl.load(tau_columns + column, mask=in_columns, other=1.0)[None, :])
    place = of_columns + row_block * num_columns + column
    size = tl.cdiv(num_rows, _BLOCK) * num_columns
    tl.store(place, peak, mask=in_columns)
    tl.store(place + size, tl.sum(weights, 0), mask=in_columns)
    tl.store(place + 2 * size, tl.sum(weights * block, 0), mask=in_columns)


@triton.jit
@no_type_check
def _weigh_block(
    images,
    texts,
    sims,
    image_group_rows,
    image_group_columns,
    text_group_rows,
    text_group_columns,
    num_rows,
    num_columns,
    dim,
    image_stride,
    text_stride,
    tau_rows,
    level_rows,
    scale_rows,
    tau_columns,
    level_columns,
    scale_columns,
    weights,
):
    """Write a block of ``dL/ds``, both directions together, to ``weights`` ``[rows, columns]``; 0 where masked."""
    row_block, column_block = _place(num_rows, num_columns)
    row, column = row_block * _BLOCK + tl.arange(0, _BLOCK), column_block * _BLOCK + tl.arange(0, _BLOCK)
    in_rows, in_columns = row < num_rows, column < num_columns
    block = _sims_of_block(images, texts, sims, row, column, num_rows, num_columns, dim, image_stride, text_stride)
    # fmt: off
    block = _masked(block, image_group_rows, image_group_columns, text_group_rows, text_group_columns,
                    row, column, num_rows, num_columns)
    # fmt: on
    tau = tl.load(tau_rows + row, mask=in_rows, other=1.0)[:, None]
    level = tl.load(level_rows + row, mask=in_rows, other=0.0)[:, None]
    total = tl.load(scale_rows + row, mask=in_rows, other=0.0)[:, None] * tl.exp((block - level) / tau)
    tau = tl.load(tau_columns + column, mask=in_columns, other=1.0)[None, :]
    level = tl.load(level_columns + column, mask=in_columns, other=0.0)[None, :]
    total += tl.load(scale_columns + column, mask=in_columns, other=0.0)[None, :] * tl.exp((block - level) / tau)
    place = row.to(tl.int64)[:, None] * num_columns + column[None, :]
    tl.store(weights + place, total.to(weights.dtype.element_ty), mask=in_rows[:, None] & in_columns[None, :])


@triton.jit
@no_type_check
def _place(num_rows, num_columns):
    """This program's block. Programs that run together share rows and columns, which stay in the cache."""
    return tl.swizzle2d(
        tl.program_id(0) // tl.cdiv(num_columns, _BLOCK),
        tl.program_id(0) % tl.cdiv(num_columns, _BLOCK),
        tl.cdiv(num_rows, _BLOCK),
        tl.cdiv(num_columns, _BLOCK),
        8,
    )


@triton.jit
@no_type_check
def _sims_of_block(
    images,
    texts,
    sims,
    row,
    column,
    num_rows,
    num_columns,
    dim,
    image_stride,
    text_stride,
):
    """A block of similarities in float32: multiplied here, or read."""
    in_rows, in_columns = (row < num_rows)[:, None], (column < num_columns)[None, :]
    row, column = row.to(tl.int64)[:, None], column.to(tl.int64)[None, :]
    if sims is None:
        block = tl.zeros([_BLOCK, _BLOCK], dtype=tl.float32)
        for start in range(0, dim, _BLOCK_DIM):
            k = start + tl.arange(0, _BLOCK_DIM)
            left = tl.load(images + row * image_stride + k[None, :], mask=in_rows & (k < dim)[None, :], other=0.0)
            right = tl.load(texts + column * text_stride + k[:, None], mask=in_columns & (k < dim)[:, None], other=0.0)
            block = tl.dot(left, right, block, input_precision="ieee")
    else:
        block = tl.load(sims + row * num_columns + column, mask=in_rows & in_columns, other=0.0)
    return block


@triton.jit
@no_type_check
def _masked(
    block,
    image_group_rows,
    image_group_columns,
    text_group_rows,
    text_group_columns,
    row,
    column,
    num_rows,
    num_columns,
):
    """The block with ``_MASKED`` where a pair is not a negative, and beyond the tile's edge."""
    in_rows, in_columns = row < num_rows, column < num_columns
    image_row = tl.load(image_group_rows + row, mask=in_rows, other=0)[:, None]
    image_column = tl.load(image_group_columns + column, mask=in_columns, other=0)[None, :]
    text_row = tl.load(text_group_rows + row, mask=in_rows, other=0)[:, None]
    text_column = tl.load(text_group_columns + column, mask=in_columns, other=0)[None, :]
    negative = (image_row != image_column) & (text_row != text_column)
    return tl.where(negative & in_rows[:, None] & in_columns[None, :], block, _MASKED)
