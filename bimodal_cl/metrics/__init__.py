"""Recall at K, top-k accuracy, recall averaged over classes, median rank, average precision: arrays in, floats out.

Everything is built on **ranks**: the place, from 1, of the right answer among all candidates. One tie rule holds
everywhere: a wrong candidate that scores exactly as high as the right one stands before it. So a model whose
features collapsed to a constant scores 0, never 100 %, and no score depends on the order of the data. Where no two
candidates tie, the values are those of CLIP_benchmark, whose tool leaves ties to the order of ``torch.topk``.

No score depends on the order of the data, the size of a block, the number of threads or the device, to the last digit:
similarities of float32 features are **exact** (:mod:`bimodal_cl.metrics.similarities`), so equal features tie wherever
they stand, and means are sums of whole numbers or correctly rounded sums (``math.fsum``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bimodal_cl.metrics.similarities import multiply_rows, scale_rows

ArrayLike: TypeAlias = np.ndarray | Tensor | Sequence[Any]

# Elements of the largest block of similarities held at once: 128 MiB in float64, and its masks.
_BLOCK_ELEMENTS = 2**24


def retrieval_recall(
    image_features: ArrayLike,
    text_features: ArrayLike,
    image_of_text: ArrayLike | None = None,
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """Recall at K of image-text retrieval in both directions.

    ``image_retrieval_recall@K``: the share of captions (queries) whose image is among the K nearest images.
    ``text_retrieval_recall@K``: the share of images (queries) with at least one of their captions among the K
    nearest captions. These are CLIP_benchmark's names and definitions. Ties count against the right answer.

    Args:
        image_features: ``[images, dim]``, unit norm for cosine similarity (the dot product is used as it is).
        text_features: ``[texts, dim]``.
        image_of_text: ``[texts]``, the row in ``image_features`` that each caption describes, in
            ``[0, images - 1]``; left out: caption ``i`` belongs to image ``i``. An image without a caption is a
            candidate for captions but asks no query itself.
        ks: cut-offs, each at least 1. A cut-off not below the number of candidates gives 1.

    Returns:
        Fractions in ``[0, 1]``, both directions for every K, in the order of ``ks``.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, a row outside the images, a bad K.

    Example:
        >>> retrieval_recall([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.1]], ks=(1,))
        {'image_retrieval_recall@1': 0.5, 'text_retrieval_recall@1': 0.5}
    """
    image_ranks, text_ranks = retrieval_ranks(image_features, text_features, image_of_text)
    return recalls_of_ranks(image_ranks, text_ranks, ks)


def recalls_of_ranks(image_ranks: ArrayLike, text_ranks: ArrayLike, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """The dictionary of :func:`retrieval_recall` from the ranks of :func:`retrieval_ranks`."""
    by_name = {"image": _as_ranks(image_ranks, "image_ranks"), "text": _as_ranks(text_ranks, "text_ranks")}
    cutoffs = _as_cutoffs(ks)
    return {f"{name}_retrieval_recall@{k}": _share(ranks <= k) for k in cutoffs for name, ranks in by_name.items()}


@torch.no_grad()
def retrieval_ranks(
    image_features: ArrayLike, text_features: ArrayLike, image_of_text: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The rank of the right answer for every query, in blocks, so the matrix of similarities is never held whole.

    Args: as :func:`retrieval_recall`.

    Returns:
        ``(image_ranks, text_ranks)``, int64, from 1. ``image_ranks`` ``[texts]``: the place of a caption's image
        among all images. ``text_ranks`` ``[images with a caption]``, in the images' order: the place of an image's
        best caption among the captions of *other* images and itself.

    Raises:
        ValueError: as :func:`retrieval_recall`.
    """
    images = _as_features(image_features, "image_features")
    texts = _as_features(text_features, "text_features")
    if images.shape[1] != texts.shape[1]:
        raise ValueError(
            f"image_features {tuple(images.shape)} and text_features {tuple(texts.shape)} differ in their width"
        )
    texts = texts.to(images.device)
    owners = _as_owners(image_of_text, len(images), len(texts)).to(images.device)
    queried = torch.unique(owners)
    everything = torch.arange(len(images), device=images.device)
    image_ranks = _ranks_by_group(texts, images, owners, everything)
    text_ranks = _ranks_by_group(images[queried], texts, queried, owners)
    return image_ranks.cpu().numpy(), text_ranks.cpu().numpy()


def topk_accuracy(logits: ArrayLike, targets: ArrayLike, ks: Sequence[int] = (1, 5)) -> dict[str, float]:
    """The share of images whose class is among the K with the largest logits. Ties count against the right class.

    Args:
        logits: ``[images, classes]``, any real numbers; only their order within a row matters.
        targets: ``[images]``, integers in ``[0, classes - 1]``.
        ks: cut-offs, each at least 1. A cut-off not below the number of classes gives 1.

    Returns:
        ``{"acc1": ..., "acc5": ...}``, fractions in ``[0, 1]``, in the order of ``ks``.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, a target outside the classes, a bad K.
    """
    ranks = class_ranks(logits, targets)
    return {f"acc{k}": _share(torch.from_numpy(ranks) <= k) for k in _as_cutoffs(ks)}


def class_ranks(logits: ArrayLike, targets: ArrayLike) -> np.ndarray:
    """The place, from 1, of every image's class among its logits: int64 ``[images]``. Arguments as topk_accuracy."""
    values = _as_features(logits, "logits")
    wanted = _as_targets(targets, len(values), values.shape[1]).to(values.device)
    right = values.gather(1, wanted[:, None])
    return (values >= right).sum(dim=1).cpu().numpy()


def mean_per_class_recall(logits_or_predictions: ArrayLike, targets: ArrayLike) -> float:
    """The recall of every class, averaged over the classes that occur in ``targets`` ("balanced accuracy").

    Args:
        logits_or_predictions: either logits, floats ``[images, classes]`` (a tie at the top counts as a mistake),
            or predicted classes, integers ``[images]``.
        targets: ``[images]``, integers from 0, below the number of classes where logits are given.

    Returns:
        A fraction in ``[0, 1]``; equal to top-1 accuracy where every class has the same number of images.

    Raises:
        ValueError: shapes that do not fit, logits that are not finite, predictions that are not integers.
    """
    given = _as_tensor(logits_or_predictions, "logits_or_predictions")
    if given.ndim == 2:
        wanted = _as_targets(targets, len(given), given.shape[1])
        hits = torch.from_numpy(class_ranks(given, wanted) == 1)
    else:
        predictions = _as_integers(given, "predictions")
        wanted = _as_targets(targets, len(predictions), None)
        hits = predictions.cpu() == wanted.cpu()
    counts = torch.bincount(wanted.cpu())
    recalled = torch.bincount(wanted.cpu()[hits], minlength=len(counts))
    present = counts > 0
    return _mean((recalled[present].double() / counts[present]).tolist())


def median_rank(ranks: ArrayLike) -> float:
    """The median of ranks from 1 (the mean of the middle two for an even number).

    Raises:
        ValueError: no rank, or ranks that are not integers from 1.
    """
    return float(np.median(_as_ranks(ranks, "ranks").numpy()))


def chance_recall(num_candidates: int, num_right: ArrayLike, k: int) -> float:
    """The recall at K that a random order of the candidates reaches on average.

    For a query with ``m`` right answers among ``n``: ``1 - C(n - m, k) / C(n, k)``.

    Args:
        num_candidates: ``n``, at least 1.
        num_right: ``m`` of every query, ``[queries]``, each in ``[1, n]``.
        k: the cut-off, at least 1.

    Returns:
        The mean over the queries, a fraction in ``[0, 1]``.
    """
    right = _as_integers(_as_tensor(num_right, "num_right"), "num_right").cpu().numpy()
    if len(right) == 0 or right.min() < 1 or right.max() > num_candidates:
        raise ValueError(f"num_right must hold integers from 1 to num_candidates={num_candidates}")
    _as_cutoffs([k])
    # C(n - m, k) / C(n, k) = product over the k draws of (share of wrong answers left).
    drawn = np.arange(min(k, num_candidates))
    misses = np.clip(num_candidates - right[:, None] - drawn, 0, None) / (num_candidates - drawn)
    return 1.0 - _mean(misses.prod(axis=1).tolist())


def average_precision(scores: ArrayLike, targets: ArrayLike) -> np.ndarray:
    """The average precision of every class on images that may show several: float64 ``[classes]``.

    Of a class: the images in the order of its scores, the best first; the precision (the share of right images so far)
    at each right image; their mean. A class that no image shows has 0, and a wrong image that ties with a right one
    stands before it. CLIP_benchmark's ``mean_average_precision`` is the mean of this over all classes.

    Args:
        scores: ``[images, classes]``, any real numbers; only their order within a column matters.
        targets: ``[images, classes]``, 1 where an image shows a class, else 0.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, targets other than 0 and 1.

    Example:
        >>> average_precision([[0.9], [0.8], [0.7]], [[1], [0], [1]]).round(4).tolist()
        [0.8333]
    """
    values = _as_features(scores, "scores").cpu().numpy()
    shown = _as_tensor(targets, "targets").cpu().numpy()
    if shown.shape != values.shape:
        raise ValueError(f"targets must have the shape of scores, {values.shape}, got {shown.shape}")
    if not np.isin(shown, (0, 1)).all():
        raise ValueError("targets must hold nothing but 0 and 1")
    found = np.zeros(values.shape[1])
    for index, (column, right) in enumerate(zip(values.T, shown.T.astype(bool), strict=True)):
        order = np.lexsort((right, -column))
        places = np.flatnonzero(right[order]) + 1
        found[index] = _mean((np.arange(1, len(places) + 1) / places).tolist()) if len(places) else 0.0
    return found


def mean_average_precision(scores: ArrayLike, targets: ArrayLike) -> float:
    """The mean over classes of :func:`average_precision`, which has the arguments: CLIP_benchmark's metric."""
    return _mean(average_precision(scores, targets).tolist())


def chance_average_precision(num_images: int, num_right: ArrayLike) -> float:
    """The mean average precision that a random order of the images reaches on average.

    For a class with ``m`` of ``n`` images, ``H_n = 1 + 1/2 + ... + 1/n``: ``H_n/n + (m - 1)/(n - 1) (1 - H_n/n)``,
    since the image on place ``k`` of a right one has before it ``(k - 1)(m - 1)/(n - 1)`` other right ones on average.

    Args:
        num_images: ``n``, at least 1.
        num_right: ``m`` of every class, ``[classes]``, each in ``[0, n]``; 0 counts as 0.
    """
    first = math.fsum(1 / place for place in range(1, num_images + 1)) / num_images
    right = _as_integers(_as_tensor(num_right, "num_right"), "num_right").tolist()
    return _mean([(first + (m - 1) / max(1, num_images - 1) * (1 - first)) if m else 0.0 for m in right])


def _ranks_by_group(
    queries: Float[Tensor, "queries dim"],
    candidates: Float[Tensor, "candidates dim"],
    query_group: Int[Tensor, " queries"],
    candidate_group: Int[Tensor, " candidates"],
) -> Int[Tensor, " queries"]:
    """1 + the wrong candidates (of another group) that score at least as high as the best right one."""
    block = max(1, _BLOCK_ELEMENTS // max(1, len(candidates)))
    ranks = [torch.zeros(0, dtype=torch.int64)]
    prepared = scale_rows(candidates)
    query_group, candidate_group = query_group.to(prepared.scales.device), candidate_group.to(prepared.scales.device)
    for start in range(0, len(queries), block):
        sims = multiply_rows(scale_rows(queries[start : start + block]), prepared)
        right: Bool[Tensor, "block candidates"] = query_group[start : start + block, None] == candidate_group
        best = sims.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
        ranks.append((1 + ((sims >= best) & ~right).sum(dim=1)).cpu())
    return torch.cat(ranks)


def _share(hits: Tensor) -> float:
    return int(hits.sum()) / len(hits)


def _mean(values: Sequence[float]) -> float:
    """The mean of a correctly rounded sum, which does not depend on the values' order."""
    return math.fsum(values) / len(values)


def _as_tensor(values: ArrayLike, name: str) -> Tensor:
    """Any array as a detached tensor, sharing memory where possible."""
    if isinstance(values, Tensor):
        return values.detach()
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold numbers, got dtype {array.dtype}")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(array))


def _as_features(values: ArrayLike, name: str) -> Tensor:
    """A finite float32 or float64 matrix with at least one row and column."""
    matrix = _as_tensor(values, name)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{name} must have two dimensions, both above 0, got shape {tuple(matrix.shape)}")
    if matrix.dtype != torch.float64:
        matrix = matrix.float()
    broken = ~torch.isfinite(matrix).all(dim=1)
    if broken.any():
        rows = broken.nonzero().flatten().tolist()
        raise ValueError(f"{name} has {len(rows)} of {len(matrix)} rows with NaN or infinity, the first is {rows[0]}")
    return matrix


def _as_integers(values: Tensor, name: str) -> Tensor:
    if values.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {tuple(values.shape)}")
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, got dtype {str(values.dtype).removeprefix('torch.')}")
    return values.long()


def _as_owners(image_of_text: ArrayLike | None, num_images: int, num_texts: int) -> Tensor:
    if image_of_text is None:
        if num_images != num_texts:
            raise ValueError(f"{num_images} images and {num_texts} texts do not pair up: give image_of_text")
        return torch.arange(num_images)
    owners = _as_integers(_as_tensor(image_of_text, "image_of_text"), "image_of_text")
    if len(owners) != num_texts:
        raise ValueError(f"image_of_text has {len(owners)} entries for {num_texts} texts")
    _refuse_outside(owners, num_images, "image_of_text", "images")
    return owners


def _as_targets(targets: ArrayLike, num_images: int, num_classes: int | None) -> Tensor:
    wanted = _as_integers(_as_tensor(targets, "targets"), "targets")
    if len(wanted) != num_images:
        raise ValueError(f"targets has {len(wanted)} entries for {num_images} images")
    if num_images == 0:
        raise ValueError("there is no image to score")
    _refuse_outside(wanted, num_classes, "targets", "classes")
    return wanted


def _refuse_outside(rows: Tensor, limit: int | None, name: str, what: str) -> None:
    outside = rows < 0 if limit is None else (rows < 0) | (rows >= limit)
    if outside.any():
        place = int(outside.nonzero()[0])
        span = "from 0" if limit is None else f"0 to {limit - 1}"
        raise ValueError(f"{name}[{place}] = {int(rows[place])} is outside the {what} ({span})")


def _as_ranks(ranks: ArrayLike, name: str) -> Tensor:
    values = _as_integers(_as_tensor(ranks, name), name).cpu()
    if len(values) == 0 or int(values.min()) < 1:
        raise ValueError(f"{name} must hold at least one rank, and ranks count from 1")
    return values


def _as_cutoffs(ks: Sequence[int]) -> list[int]:
    for k in ks:
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise ValueError(f"every cut-off K must be an integer of at least 1, got {k!r}")
    return [int(k) for k in ks]
