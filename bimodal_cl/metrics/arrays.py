"""Check the arrays that metrics take, and average without rounding errors that depend on the order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

ArrayLike: TypeAlias = np.ndarray | Tensor | Sequence[Any]


def as_tensor(values: ArrayLike, name: str) -> Tensor:
    """Any array as a detached tensor, sharing memory where possible."""
    if isinstance(values, Tensor):
        return values.detach()
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold numbers, got dtype {array.dtype}")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(array))


def as_matrix(values: ArrayLike, name: str) -> Tensor:
    """A finite float32 or float64 matrix with at least one row and column."""
    matrix = as_tensor(values, name)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{name} must have two dimensions, both above 0, got shape {tuple(matrix.shape)}")
    if matrix.dtype != torch.float64:
        matrix = matrix.float()
    broken = ~torch.isfinite(matrix).all(dim=1)
    if broken.any():
        rows = broken.nonzero().flatten().tolist()
        raise ValueError(f"{name} has {len(rows)} of {len(matrix)} rows with NaN or infinity, the first is {rows[0]}")
    return matrix


def as_integers(values: Tensor, name: str) -> Tensor:
    if values.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {tuple(values.shape)}")
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, got dtype {str(values.dtype).removeprefix('torch.')}")
    return values.long()


def as_targets(targets: ArrayLike, num_images: int, num_classes: int | None) -> Tensor:
    wanted = as_integers(as_tensor(targets, "targets"), "targets")
    if len(wanted) != num_images:
        raise ValueError(f"targets has {len(wanted)} entries for {num_images} images")
    if num_images == 0:
        raise ValueError("there is no image to score")
    check_range(wanted, num_classes, "targets", "classes")
    return wanted


def as_ranks(ranks: ArrayLike, name: str) -> Tensor:
    values = as_integers(as_tensor(ranks, name), name).cpu()
    if len(values) == 0 or int(values.min()) < 1:
        raise ValueError(f"{name} must hold at least one rank, and ranks count from 1")
    return values


def as_cutoffs(ks: Sequence[int]) -> list[int]:
    for k in ks:
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise ValueError(f"every cut-off K must be an integer of at least 1, got {k!r}")
    return [int(k) for k in ks]


def check_range(rows: Tensor, limit: int | None, name: str, what: str) -> None:
    outside = rows < 0 if limit is None else (rows < 0) | (rows >= limit)
    if outside.any():
        place = int(outside.nonzero()[0])
        span = "from 0" if limit is None else f"0 to {limit - 1}"
        raise ValueError(f"{name}[{place}] = {int(rows[place])} is outside the {what} ({span})")


def share(hits: Tensor) -> float:
    return int(hits.sum()) / len(hits)


def exact_mean(values: Sequence[float]) -> float:
    """The mean of a correctly rounded sum, which does not depend on the values' order."""
    return math.fsum(values) / len(values)
