"""Metrics of single-label classification: top-k accuracy and recall averaged over classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bimodal_cl.metrics.arrays import (
    ArrayLike,
    as_cutoffs,
    as_integers,
    as_matrix,
    as_targets,
    as_tensor,
    exact_mean,
    share,
)


def topk_accuracy(logits: ArrayLike, targets: ArrayLike, ks: Sequence[int] = (1, 5)) -> dict[str, float]:
    """Compute the fraction of images whose class is among the K largest logits; ties count against the right class.

    Args:
        logits: ``[images, classes]``, any real numbers; only their order within a row matters.
        targets: ``[images]``, integers in ``[0, classes - 1]``.
        ks: cut-offs, each at least 1. A cut-off of at least the number of classes gives 1.

    Returns:
        ``{"acc1": ..., "acc5": ...}``, fractions in ``[0, 1]``, in the order of ``ks``.

    Raises:
        ValueError: shapes do not match, a value is not finite, a target is out of range, or a K is invalid.
    """
    ranks = class_ranks(logits, targets)
    return {f"acc{k}": share(torch.from_numpy(ranks) <= k) for k in as_cutoffs(ks)}


def class_ranks(logits: ArrayLike, targets: ArrayLike) -> np.ndarray:
    """Compute the rank, from 1, of every image's class among its logits.

    Args:
        logits: ``[images, classes]``, any real numbers.
        targets: ``[images]``, integers in ``[0, classes - 1]``.

    Returns:
        int64 ``[images]``; classes that tie with the right one are ranked before it.

    Raises:
        ValueError: shapes do not match, a value is not finite, or a target is out of range.
    """
    values = as_matrix(logits, "logits")
    wanted = as_targets(targets, len(values), values.shape[1]).to(values.device)
    right = values.gather(1, wanted[:, None])
    return (values >= right).sum(dim=1).cpu().numpy()


def mean_per_class_recall(logits_or_predictions: ArrayLike, targets: ArrayLike) -> float:
    """Compute the recall of every class, averaged over the classes that occur in ``targets`` ("balanced accuracy").

    Args:
        logits_or_predictions: either logits, floats ``[images, classes]`` (a tie at the top counts as a mistake),
            or predicted classes, integers ``[images]``.
        targets: ``[images]``, integers from 0, below the number of classes where logits are given.

    Returns:
        A fraction in ``[0, 1]``; equal to top-1 accuracy where every class has the same number of images.

    Raises:
        ValueError: shapes do not match, a logit is not finite, or predictions are not integers.
    """
    given = as_tensor(logits_or_predictions, "logits_or_predictions")
    if given.ndim == 2:
        wanted = as_targets(targets, len(given), given.shape[1])
        hits = torch.from_numpy(class_ranks(given, wanted) == 1)
    else:
        predictions = as_integers(given, "predictions")
        wanted = as_targets(targets, len(predictions), None)
        hits = predictions.cpu() == wanted.cpu()
    counts = torch.bincount(wanted.cpu())
    recalled = torch.bincount(wanted.cpu()[hits], minlength=len(counts))
    present = counts > 0
    return exact_mean((recalled[present].double() / counts[present]).tolist())
