"""Check and convert the arrays that metrics take, and average independently of the order of values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

ArrayLike: TypeAlias = np.ndarray | Tensor | Sequence[Any]


def as_tensor(values: ArrayLike, name: str) -> Tensor:
    """Return an array of numbers as a detached tensor, which shares memory where possible.

    Raises:
        ValueError: the values are not numbers; the message begins with `name`.
    """
    if isinstance(values, Tensor):
        return values.detach()
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold numbers, got dtype {array.dtype}")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(array))


def as_matrix(values: ArrayLike, name: str) -> Tensor:
    """Return a finite float32 or float64 matrix with at least one row and column.

    Raises:
        ValueError: another shape, or values that are not finite; the message begins with `name`.
    """
    matrix = as_tensor(values, name)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{name} must have two dimensions, both above 0, got shape {tuple(matrix.shape)}")
    if matrix.dtype != torch.float64:
        matrix = matrix.float()
    # An extreme of a row shows a value that is not finite, and needs no second matrix.
    broken = ~(torch.isfinite(matrix.amin(dim=1)) & torch.isfinite(matrix.amax(dim=1)))
    if broken.any():
        rows = broken.nonzero().flatten().tolist()
        raise ValueError(f"{name} has {len(rows)} of {len(matrix)} rows with NaN or infinity, the first is {rows[0]}")
    return matrix


def as_integers(values: Tensor, name: str) -> Tensor:
    """Return a vector of integers as int64.

    Raises:
        ValueError: another shape or dtype; the message begins with `name`.
    """
    if values.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {tuple(values.shape)}")
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, got dtype {str(values.dtype).removeprefix('torch.')}")
    return values.long()


def as_targets(targets: ArrayLike, num_images: int, num_classes: int | None) -> Tensor:
    """Return class indices as int64 ``[images]``.

    Args:
        targets: ``[images]``, integers from 0.
        num_images: the number of images that were scored, at least 1.
        num_classes: exclusive upper bound of the targets; None: no bound.

    Raises:
        ValueError: another shape or dtype, or a target out of range.
    """
    wanted = as_integers(as_tensor(targets, "targets"), "targets")
    if len(wanted) != num_images:
        raise ValueError(f"targets has {len(wanted)} entries for {num_images} images")
    if num_images == 0:
        raise ValueError("there is no image to score")
    check_range(wanted, num_classes, "targets", "classes")
    return wanted


def as_ranks(ranks: ArrayLike, name: str) -> Tensor:
    """Return ranks as int64 on the CPU.

    Raises:
        ValueError: no rank, or one below 1; the message begins with `name`.
    """
    values = as_integers(as_tensor(ranks, name), name).cpu()
    if len(values) == 0 or int(values.min()) < 1:
        raise ValueError(f"{name} must hold at least one rank, and ranks count from 1")
    return values


def as_cutoffs(ks: Sequence[int]) -> list[int]:
    """Return the cut-offs K as ints.

    Raises:
        ValueError: a cut-off is not an integer of at least 1.
    """
    for k in ks:
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise ValueError(f"every cut-off K must be an integer of at least 1, got {k!r}")
    return [int(k) for k in ks]


def check_range(rows: Tensor, limit: int | None, name: str, what: str) -> None:
    """Check that every row index is at least 0 and, where there is a limit, below it.

    Args:
        rows: int64 indices.
        limit: exclusive upper bound; None: no bound.
        name: the argument, for messages.
        what: what the indices point to, such as ``"classes"``, for messages.

    Raises:
        ValueError: an index is outside the range.
    """
    outside = rows < 0 if limit is None else (rows < 0) | (rows >= limit)
    if outside.any():
        place = int(outside.nonzero()[0])
        span = "from 0" if limit is None else f"0 to {limit - 1}"
        raise ValueError(f"{name}[{place}] = {int(rows[place])} is outside the {what} ({span})")


def share(hits: Tensor) -> float:
    """Return the fraction of true values in a bool vector."""
    return int(hits.sum()) / len(hits)


def exact_mean(values: Sequence[float]) -> float:
    """Return the mean by a correctly rounded sum, which does not depend on the order of the values."""
    return math.fsum(values) / len(values)
