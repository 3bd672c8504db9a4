"""Rank the right answers of image-text retrieval in both directions, by one pass over tiles of the similarities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bimodal_cl.metrics.arrays import ArrayLike, as_integers, as_matrix, as_tensor, check_range
from bimodal_cl.metrics.similarities import multiply_rows, pair_similarities, scale_rows

# A tile of similarities: 16 MiB in float64, whose memory the allocator keeps for the next one.
_IMAGES_AT_ONCE, _TEXTS_AT_ONCE = 2048, 1024


@dataclass(frozen=True)
class RankedQueries:
    """How well every query found its right answers.

    Attributes:
        image_ranks: int64 ``[texts]``, from 1: the rank of a caption's image among all images.
        text_ranks: int64 ``[images with a caption]``, in the images' order, from 1: the rank of an image's best caption
            among itself and the captions of *other* images.
        text_precisions: float64 ``[images with a caption]``, in ``[0, 1]``: the average precision at R of an image's
            captions, as in :func:`rank_queries`.
    """

    image_ranks: np.ndarray
    text_ranks: np.ndarray
    text_precisions: np.ndarray


@torch.no_grad()
def rank_queries(
    image_features: ArrayLike, text_features: ArrayLike, image_of_text: ArrayLike | None = None
) -> RankedQueries:
    """Rank the right answers of every query.

    The average precision at R of a query with R right answers is the sum, over the right answers among the first R
    candidates, of the precision up to each, divided by R (Musgrave, Belongie & Lim 2020, "A Metric Learning Reality
    Check", section 3.2). Here every wrong candidate that ties with a right one stands before it. A caption has one
    right image, so its average precision at R is 1 at rank 1 and else 0.

    Beside the features, the memory is that of a tile of similarities and of a few numbers for each image and caption.
    Both directions are counted in the same tile, so each similarity is computed once.

    Args:
        image_features: ``[images, dim]``, of unit norm for cosine similarity, as dot products are compared.
        text_features: ``[texts, dim]``.
        image_of_text: ``[texts]``, the row in ``image_features`` that each caption describes, in
            ``[0, images - 1]``; None: caption ``i`` describes image ``i``. An image without a caption is a candidate
            but not a query.

    Raises:
        ValueError: shapes do not match, a value is not finite, or a row is out of range.
    """
    images = as_matrix(image_features, "image_features")
    texts = as_matrix(text_features, "text_features")
    if images.shape[1] != texts.shape[1]:
        raise ValueError(
            f"image_features {tuple(images.shape)} and text_features {tuple(texts.shape)} differ in their width"
        )
    if images.device.type == "mps":  # has no float64
        images = images.cpu()
    texts = texts.to(images.device)
    owners = _as_owners(image_of_text, len(images), len(texts)).to(images.device)
    right = pair_similarities(images, texts, owners, torch.arange(len(texts), device=texts.device))
    wrong_images = torch.zeros(len(texts), dtype=torch.int64, device=images.device)
    blocks = []
    for start in range(0, len(images), _IMAGES_AT_ONCE):
        rows = scale_rows(images[start : start + _IMAGES_AT_ONCE])
        block = _ImageBlock(start, len(rows.coarse), owners, right)
        for column in range(0, len(texts), _TEXTS_AT_ONCE):
            part = slice(column, column + _TEXTS_AT_ONCE)
            wrong = multiply_rows(rows, scale_rows(texts[part]))
            _leave_out_right(wrong, owners[part] - start)
            wrong_images[part] += _count(wrong >= right[part], dim=0)
            block.add(wrong)
        blocks.append(block.results())
    return RankedQueries(
        1 + wrong_images.cpu().numpy(),
        torch.cat([ranks for ranks, _ in blocks]).numpy(),
        torch.cat([precisions for _, precisions in blocks]).numpy(),
    )


class _ImageBlock:
    """Count what stands before the right captions of consecutive images, tile by tile.

    Args:
        start: the first image's row.
        size: the number of images.
        owners: int64 ``[texts]``, the image of every caption.
        right: float64 ``[texts]``, its similarity with that image.
    """

    def __init__(self, start: int, size: int, owners: Tensor, right: Tensor) -> None:
        texts = ((owners >= start) & (owners < start + size)).nonzero()[:, 0]
        rows, order = torch.sort(owners[texts] - start, stable=True)
        self._num_right = torch.bincount(rows, minlength=size)
        self._most = max(1, int(self._num_right.max()))
        within = torch.arange(len(rows), device=rows.device) - (self._num_right.cumsum(0) - self._num_right)[rows]
        # The right similarities of each image, best first; -inf fills the rest.
        own = torch.full((size, self._most), -torch.inf, dtype=right.dtype, device=right.device)
        own[rows, within] = right[texts[order]]
        self._own: Float[Tensor, "images most"] = own.sort(dim=1, descending=True).values
        self._best = self._own[:, :1].masked_fill(self._num_right[:, None] == 0, torch.inf)
        self._before = torch.zeros(size, dtype=torch.int64, device=right.device)
        self._nearest: Float[Tensor, "images most"] = torch.full_like(self._own, -torch.inf)

    def add(self, wrong: Float[Tensor, "images some_texts"]) -> None:
        """Count a tile of similarities, in which those of the right captions are ``-inf``."""
        self._before += _count(wrong >= self._best, dim=1)
        # The precision of an image is 0 from R wrong captions before its best one on.
        open_rows = (self._before < self._num_right).nonzero()[:, 0]
        if len(open_rows):
            candidates = torch.cat([self._nearest[open_rows], wrong[open_rows]], dim=1)
            self._nearest[open_rows] = candidates.topk(self._most, dim=1).values

    def results(self) -> tuple[Int[Tensor, " queries"], Float[Tensor, " queries"]]:
        """Return ranks and average precisions at R of the images with a caption, on the CPU."""
        queried = self._num_right > 0
        # A right answer that more than `most` wrong ones precede is not among the first R.
        before = torch.searchsorted(-self._nearest, -self._own, right=True)[queried].cpu()
        num_right = self._num_right[queried].cpu()[:, None]
        ranks = 1 + self._before[queried].cpu()
        order = torch.arange(1, self._most + 1)
        place = order + before
        outside = (order > num_right) | (place > num_right) | (ranks[:, None] > num_right)
        precision = (order / place.double()).masked_fill(outside, 0.0)
        # Summed in order, so that the fill of a block does not change the last bits.
        return ranks, precision.cumsum(dim=1)[:, -1] / num_right[:, 0]


def _leave_out_right(sims: Float[Tensor, "images texts"], row_of_text: Int[Tensor, " texts"]) -> None:
    """Set the similarity of every caption with its image, where it is among the rows, to ``-inf``."""
    columns = ((row_of_text >= 0) & (row_of_text < len(sims))).nonzero()[:, 0]
    sims[row_of_text[columns], columns] = -torch.inf


def _count(hits: Bool[Tensor, "rows columns"], dim: int) -> Int[Tensor, " kept"]:
    """Count the true values along a dimension of a tile.

    In float32, which represents such numbers exactly: torch sums it many times faster than it sums bools.
    """
    return hits.float().sum(dim=dim).long()


def _as_owners(image_of_text: ArrayLike | None, num_images: int, num_texts: int) -> Tensor:
    if image_of_text is None:
        if num_images != num_texts:
            raise ValueError(f"{num_images} images and {num_texts} texts do not pair up: give image_of_text")
        return torch.arange(num_images)
    owners = as_integers(as_tensor(image_of_text, "image_of_text"), "image_of_text")
    if len(owners) != num_texts:
        raise ValueError(f"image_of_text has {len(owners)} entries for {num_texts} texts")
    check_range(owners, num_images, "image_of_text", "images")
    return owners
