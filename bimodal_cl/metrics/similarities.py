"""Compute dot products without rounding, so that their order depends on the features alone.

The last bits of a floating-point matrix product depend on the block size, the position in the matrix and the number of
threads, so that equal candidates do not tie and near ones change ranks. Here float32 features are rounded to ``2**-26``
of their row's scale ``s``, the power of two for which the row's norm is between 2/3 and 4/3 of it. This changes only
bits that float32's own rounding made (unit-norm features: by at most ``2**-27``). Every product of a row of scale ``s``
and one of scale ``t`` is then a multiple of ``2**-52 s t``, and by the Cauchy-Schwarz inequality every partial sum is
below ``2 s t``, so float64 represents it exactly. Sums without rounding do not depend on their order: equal rows give
equal values at any position, block size, number of threads and on any device.

Where both sides are float64, the rounded-off part is rounded to a finer grid, on which its products are exact too, and
added: features of dimension 512 then keep ``2**-48`` of their scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_COARSE_BITS = 26
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class ScaledRows:
    """Features as ``coarse + fine``, both float64.

    ``coarse`` holds multiples of ``2**-26`` of the row's scale; ``fine`` is the rest of float64 features, and None for
    others.
    """

    coarse: Float[Tensor, "rows dim"]
    fine: Float[Tensor, "rows dim"] | None


def scale_rows(features: Float[Tensor, "rows dim"]) -> ScaledRows:
    """Prepare features for :func:`multiply_rows`."""
    if features.device.type == "mps":  # has no float64
        features = features.cpu()
    keeps_fine = features.dtype == torch.float64
    values = features.double()
    # The power of two changes at norms of 2/3 and 4/3, far from the last bits of a unit norm.
    _, exponent = torch.frexp(0.75 * torch.linalg.vector_norm(values, dim=1, keepdim=True))
    scales = torch.ldexp(torch.ones_like(values[:, :1]), exponent)
    coarse = _round(values, scales, _COARSE_BITS)
    return ScaledRows(coarse, _round(values - coarse, scales, _fine_bits(values.shape[1])) if keeps_fine else None)


def multiply_rows(queries: ScaledRows, candidates: ScaledRows) -> Float[Tensor, "queries candidates"]:
    """Return the dot products of prepared features, as :func:`exact_similarities`."""
    return _multiply(queries, candidates, lambda left, right: left @ right.T)


def exact_similarities(
    queries: Float[Tensor, "queries dim"], candidates: Float[Tensor, "candidates dim"]
) -> Float[Tensor, "queries candidates"]:
    """Return dot products as float64: exact for float32 features, and nearly so for float64 features.

    Beside the result, only some of the candidates are held in float64 at once.
    """
    prepared = scale_rows(queries)
    return torch.cat([multiply_rows(prepared, scale_rows(some)) for some in candidates.split(_ROWS_AT_ONCE)], dim=1)


def pair_similarities(
    first: Float[Tensor, "first dim"],
    second: Float[Tensor, "second dim"],
    first_rows: Int[Tensor, " pairs"],
    second_rows: Int[Tensor, " pairs"],
) -> Float[Tensor, " pairs"]:
    """Return the dot products of some rows with some others, equal to the last bit to :func:`exact_similarities`."""
    sims = [
        _multiply(scale_rows(first[left]), scale_rows(second[right]), lambda one, other: (one * other).sum(dim=1))
        for left, right in zip(first_rows.split(_ROWS_AT_ONCE), second_rows.split(_ROWS_AT_ONCE), strict=True)
    ]
    return torch.cat(sims)


def _multiply(first: ScaledRows, second: ScaledRows, product: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    sims = product(first.coarse, second.coarse)
    if first.fine is not None and second.fine is not None:
        # Each product is exact, and their sum is the same if the sides are swapped.
        crossed = product(first.coarse, second.fine) + product(first.fine, second.coarse)
        sims += crossed + product(first.fine, second.fine)
    return sims


def _round(values: Tensor, scales: Tensor, bits: int) -> Tensor:
    """Return values rounded to multiples of ``scales * 2**-bits``; every other step is exact."""
    grid = scales * 2.0**-bits
    return (values / grid).round_().mul_(grid)


def _fine_bits(dim: int) -> int:
    """Return ``b`` such that products of parts of at most ``2**-27``, rounded to ``2**-b``, are exact.

    With scales of 1, a sum of ``coarse * fine`` is below ``4/3 sqrt(dim) 2**-27`` and a multiple of ``2**-(26 + b)``;
    one of ``fine * fine`` is below ``dim 2**-54`` and a multiple of ``2**-2b``. Both fit 53 bits.
    """
    return 53 - math.ceil(math.log2(4 / 3 * math.sqrt(dim)))
