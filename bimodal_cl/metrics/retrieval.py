"""Metrics of image-text retrieval: recall at K in both directions, ranks, mAP@R, and chance levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bimodal_cl.metrics.arrays import (
    ArrayLike,
    as_cutoffs,
    as_integers,
    as_matrix,
    as_ranks,
    as_tensor,
    check_range,
    exact_mean,
    share,
)
from bimodal_cl.metrics.similarities import multiply_rows, scale_rows

_HEADLINE_KS = (1, 5, 10)  # of RSUM
# Elements of the largest block of similarities held at once: 128 MiB in float64, and its masks.
_BLOCK_ELEMENTS = 2**24


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


def retrieval_recall(
    image_features: ArrayLike,
    text_features: ArrayLike,
    image_of_text: ArrayLike | None = None,
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """Compute recall at K of image-text retrieval in both directions.

    ``image_retrieval_recall@K``: the fraction of captions (queries) whose image is among the K nearest images.
    ``text_retrieval_recall@K``: the fraction of images (queries) with at least one of their captions among the K
    nearest captions. These are CLIP_benchmark's names and definitions. Ties count against the right answer.

    Args:
        image_features: ``[images, dim]``, of unit norm for cosine similarity, as dot products are compared.
        text_features: ``[texts, dim]``.
        image_of_text: ``[texts]``, the row in ``image_features`` that each caption describes, in
            ``[0, images - 1]``; None: caption ``i`` describes image ``i``. An image without a caption is a candidate
            but not a query.
        ks: cut-offs, each at least 1. A cut-off of at least the number of candidates gives 1.

    Returns:
        Fractions in ``[0, 1]``, both directions for every K, in the order of ``ks``.

    Raises:
        ValueError: shapes do not match, a value is not finite, a row is out of range, or a K is invalid.

    Example:
        >>> retrieval_recall([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.1]], ks=(1,))
        {'image_retrieval_recall@1': 0.5, 'text_retrieval_recall@1': 0.5}
    """
    image_ranks, text_ranks = retrieval_ranks(image_features, text_features, image_of_text)
    return recalls_of_ranks(image_ranks, text_ranks, ks)


def recalls_of_ranks(image_ranks: ArrayLike, text_ranks: ArrayLike, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Return the dictionary of :func:`retrieval_recall` for the ranks from :func:`retrieval_ranks`."""
    by_name = {"image": as_ranks(image_ranks, "image_ranks"), "text": as_ranks(text_ranks, "text_ranks")}
    cutoffs = as_cutoffs(ks)
    return {f"{name}_retrieval_recall@{k}": share(ranks <= k) for k in cutoffs for name, ranks in by_name.items()}


def retrieval_ranks(
    image_features: ArrayLike, text_features: ArrayLike, image_of_text: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the ranks of :func:`rank_queries` alone; the arguments are those of :func:`retrieval_recall`.

    Returns:
        ``(image_ranks, text_ranks)``, see :class:`RankedQueries`.

    Raises:
        ValueError: as :func:`retrieval_recall`.
    """
    ranked = rank_queries(image_features, text_features, image_of_text)
    return ranked.image_ranks, ranked.text_ranks


@torch.no_grad()
def rank_queries(
    image_features: ArrayLike, text_features: ArrayLike, image_of_text: ArrayLike | None = None
) -> RankedQueries:
    """Rank the right answers of every query, in blocks of the similarity matrix.

    The average precision at R of a query with R right answers is the sum, over the right answers among the first R
    candidates, of the precision up to each, divided by R (Musgrave, Belongie & Lim 2020, "A Metric Learning Reality
    Check", section 3.2). Here every wrong candidate that ties with a right one stands before it. A caption has one
    right image, so its average precision at R is 1 at rank 1 and else 0.

    The arguments are those of :func:`retrieval_recall`.

    Raises:
        ValueError: as :func:`retrieval_recall`.
    """
    images = as_matrix(image_features, "image_features")
    texts = as_matrix(text_features, "text_features")
    if images.shape[1] != texts.shape[1]:
        raise ValueError(
            f"image_features {tuple(images.shape)} and text_features {tuple(texts.shape)} differ in their width"
        )
    texts = texts.to(images.device)
    owners = _as_owners(image_of_text, len(images), len(texts)).to(images.device)
    queried = torch.unique(owners)
    everything = torch.arange(len(images), device=images.device)
    image_ranks, _ = _rank_by_group(texts, images, owners, everything)
    text_ranks, text_precisions = _rank_by_group(images[queried], texts, queried, owners)
    return RankedQueries(image_ranks.numpy(), text_ranks.numpy(), text_precisions.numpy())


def median_rank(ranks: ArrayLike) -> float:
    """Compute the median of ranks (for an even number, the mean of the middle two).

    Raises:
        ValueError: there is no rank, or a rank is not an integer of at least 1.
    """
    return float(np.median(as_ranks(ranks, "ranks").numpy()))


def mean_rank(ranks: ArrayLike) -> float:
    """Compute the mean of ranks.

    Raises:
        ValueError: there is no rank, or a rank is not an integer of at least 1.
    """
    values = as_ranks(ranks, "ranks")
    return int(values.sum()) / len(values)


def recall_sum(image_ranks: ArrayLike, text_ranks: ArrayLike) -> float:
    """Compute RSUM, the sum of recall at 1, 5 and 10 in both directions.

    Returns:
        A sum of six fractions, in ``[0, 6]``; papers print it in percent points, up to 600.
    """
    return math.fsum(recalls_of_ranks(image_ranks, text_ranks, _HEADLINE_KS).values())


def chance_precision(num_candidates: int, num_right: ArrayLike) -> float:
    """Compute the expected mAP@R of candidates in random order.

    With ``R`` right answers among ``n`` candidates, place ``i`` holds a right one with probability ``R/n``, and then
    ``1 + (i - 1)(R - 1)/(n - 1)`` of the first ``i`` are right on average.

    Args:
        num_candidates: ``n``, at least 1.
        num_right: ``R`` of every query, ``[queries]``, each in ``[1, n]``.

    Returns:
        The mean over the queries, a fraction in ``[0, 1]``.

    Raises:
        ValueError: ``R`` is out of range.
    """
    sizes, counts = np.unique(_as_num_right(num_right, num_candidates), return_counts=True)
    others = max(1, num_candidates - 1)
    expected = [
        math.fsum((1 + (i - 1) * (size - 1) / others) / i for i in range(1, size + 1)) / num_candidates
        for size in sizes.tolist()
    ]
    return math.fsum(value * count for value, count in zip(expected, counts.tolist(), strict=True)) / int(counts.sum())


def chance_recall(num_candidates: int, num_right: ArrayLike, k: int) -> float:
    """Compute the expected recall at K of candidates in random order.

    For a query with ``m`` right answers among ``n`` candidates it is ``1 - C(n - m, k) / C(n, k)``.

    Args:
        num_candidates: ``n``, at least 1.
        num_right: ``m`` of every query, ``[queries]``, each in ``[1, n]``.
        k: the cut-off, at least 1.

    Returns:
        The mean over the queries, a fraction in ``[0, 1]``.

    Raises:
        ValueError: ``m`` is out of range, or K is invalid.
    """
    right = _as_num_right(num_right, num_candidates)
    as_cutoffs([k])
    # C(n - m, k) / C(n, k) = product over k draws of the fraction of wrong answers among those left.
    drawn = np.arange(min(k, num_candidates))
    misses = np.clip(num_candidates - right[:, None] - drawn, 0, None) / (num_candidates - drawn)
    return 1.0 - exact_mean(misses.prod(axis=1).tolist())


def _rank_by_group(
    queries: Float[Tensor, "queries dim"],
    candidates: Float[Tensor, "candidates dim"],
    query_group: Int[Tensor, " queries"],
    candidate_group: Int[Tensor, " candidates"],
) -> tuple[Int[Tensor, " queries"], Float[Tensor, " queries"]]:
    """Return ranks and average precisions at R of queries, whose right answers are the candidates of their group.

    A rank is 1 + the number of wrong candidates that score at least as high as the best right one.
    """
    block = max(1, _BLOCK_ELEMENTS // max(1, len(candidates)))
    ranks = [torch.zeros(0, dtype=torch.int64)]
    precisions = [torch.zeros(0, dtype=torch.float64)]
    prepared = scale_rows(candidates)
    query_group, candidate_group = query_group.to(prepared.scales.device), candidate_group.to(prepared.scales.device)
    for start in range(0, len(queries), block):
        sims = multiply_rows(scale_rows(queries[start : start + block]), prepared)
        right: Bool[Tensor, "block candidates"] = query_group[start : start + block, None] == candidate_group
        best = sims.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
        ranks.append((1 + ((sims >= best) & ~right).sum(dim=1)).cpu())
        precisions.append(_average_precision_at_r(sims, right))
    return torch.cat(ranks), torch.cat(precisions)


def _average_precision_at_r(
    sims: Float[Tensor, "block candidates"], right: Bool[Tensor, "block candidates"]
) -> Float[Tensor, " block"]:
    """Return the average precision at R of every row; ``sims`` is overwritten."""
    rows, columns = right.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(sims))
    most = int(counts.max())
    # The right answers of each row, best first; -inf fills the rest.
    found = torch.full((len(sims), most), -torch.inf, dtype=sims.dtype, device=sims.device)
    within = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    found[rows, within] = sims[rows, columns]
    found = found.sort(dim=1, descending=True).values
    # A right answer that more than `most` wrong ones precede is not among the first R.
    wrong = sims.masked_fill_(right, -torch.inf).topk(most, dim=1).values
    before = torch.searchsorted(-wrong, -found, right=True).cpu()
    num_right = counts.cpu()[:, None]
    order = torch.arange(1, most + 1)
    place = order + before
    precision = (order / place.double()).masked_fill((order > num_right) | (place > num_right), 0.0)
    # Summed in order, so that the fill of a block does not change the last bits.
    return precision.cumsum(dim=1)[:, -1] / num_right[:, 0]


def _as_num_right(num_right: ArrayLike, num_candidates: int) -> np.ndarray:
    right = as_integers(as_tensor(num_right, "num_right"), "num_right").cpu().numpy()
    if len(right) == 0 or right.min() < 1 or right.max() > num_candidates:
        raise ValueError(f"num_right must hold integers from 1 to num_candidates={num_candidates}")
    return right


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
