"""Compute dot products without rounding, so that their order depends on the features alone.

The last bits of a floating-point matrix product depend on the block size, the position in the matrix and the number of
threads, so that equal candidates do not tie and near ones change ranks. Here float32 features are rounded to ``2**-26``
of their row's norm: each row is scaled by a power of two to a norm between 2/3 and 4/3, and its values are rounded to
multiples of ``2**-26``, which changes only bits that float32's own rounding made (unit-norm features: by at most
``2**-27``). Every product is then a multiple of ``2**-52``, and by the Cauchy-Schwarz inequality every partial sum is
below 2, so float64 represents it exactly. Sums without rounding do not depend on their order: equal rows give equal
values at any position, block size, number of threads and on any device.

Where both sides are float64, the rounded-off part is added: then only the last bits of a term ``2**26`` times smaller
depend on the order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_GRID = 2.0**26


@dataclass(frozen=True)
class ScaledRows:
    """Features as ``scales * (coarse + fine)``, all float64.

    ``coarse`` holds multiples of ``2**-26``; ``fine`` is the rest of float64 features, and None for others.
    """

    coarse: Float[Tensor, "rows dim"]
    fine: Float[Tensor, "rows dim"] | None
    scales: Float[Tensor, "rows 1"]


def scale_rows(features: Float[Tensor, "rows dim"]) -> ScaledRows:
    """Prepare features for :func:`multiply_rows`, once for all blocks."""
    if features.device.type == "mps":  # has no float64
        features = features.cpu()
    values = features.double()
    # The power of two changes at norms of 2/3 and 4/3, far from the last bits of a unit norm.
    _, exponent = torch.frexp(0.75 * torch.linalg.vector_norm(values, dim=1, keepdim=True))
    scales = torch.ldexp(torch.ones_like(values[:, :1]), exponent)
    values = values / scales
    coarse = (values * _GRID).round() / _GRID
    return ScaledRows(coarse, values - coarse if features.dtype == torch.float64 else None, scales)


def multiply_rows(queries: ScaledRows, candidates: ScaledRows) -> Float[Tensor, "queries candidates"]:
    """Return the dot products of prepared features, as :func:`exact_similarities`."""
    sims = queries.coarse @ candidates.coarse.T
    if queries.fine is not None and candidates.fine is not None:
        sims += queries.coarse @ candidates.fine.T + queries.fine @ (candidates.coarse + candidates.fine).T
    return sims * candidates.scales.T * queries.scales


def exact_similarities(
    queries: Float[Tensor, "queries dim"], candidates: Float[Tensor, "candidates dim"]
) -> Float[Tensor, "queries candidates"]:
    """Return dot products as float64: exact for float32 features, and nearly so for float64 features."""
    return multiply_rows(scale_rows(queries), scale_rows(candidates))
