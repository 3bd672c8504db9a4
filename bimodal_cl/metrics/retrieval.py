"""Metrics of image-text retrieval: recall at K in both directions, ranks, mAP@R, and chance levels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bimodal_cl.metrics.arrays import ArrayLike, as_cutoffs, as_integers, as_ranks, as_tensor, exact_mean, share
from bimodal_cl.metrics.ranking import rank_queries

_HEADLINE_KS = (1, 5, 10)  # of RSUM


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
    """Compute the ranks of :func:`rank_queries` alone, with its arguments.

    Returns:
        ``(image_ranks, text_ranks)``, see ``bimodal_cl.metrics.RankedQueries``.

    Raises:
        ValueError: as :func:`rank_queries`.
    """
    ranked = rank_queries(image_features, text_features, image_of_text)
    return ranked.image_ranks, ranked.text_ranks


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


def _as_num_right(num_right: ArrayLike, num_candidates: int) -> np.ndarray:
    right = as_integers(as_tensor(num_right, "num_right"), "num_right").cpu().numpy()
    if len(right) == 0 or right.min() < 1 or right.max() > num_candidates:
        raise ValueError(f"num_right must hold integers from 1 to num_candidates={num_candidates}")
    return right
