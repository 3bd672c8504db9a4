"""Similarities whose order depends on nothing but the features: dot products without rounding.

A float product of matrices gives other last bits in another block size, at another place, with other threads, so that
equal candidates do not tie and near ones change places. Here float32 features are kept to ``2**-26`` of their row's
norm: each row is scaled by a power of two to a norm between 2/3 and 4/3 and its values are rounded to multiples of
``2**-26``, which changes only bits that float32's own rounding made (unit-norm features: by at most ``2**-27``).
Every product is then a multiple of ``2**-52``, and by Cauchy and Schwarz every sum of some of them is below 2, so a
float64 holds it whole. Sums without rounding do not depend on their order: equal rows give equal values, wherever they
stand, however the product is blocked, with any number of threads, on any device.

Where both sides are float64, what the grid left out is added: then only the last bits of a term ``2**26`` times smaller
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
    """Features as ``scales * (coarse + fine)``: ``coarse`` multiples of ``2**-26``; float64, ``fine`` if they were."""

    coarse: Float[Tensor, "rows dim"]
    fine: Float[Tensor, "rows dim"] | None
    scales: Float[Tensor, "rows 1"]


def scale_rows(features: Float[Tensor, "rows dim"]) -> ScaledRows:
    """Prepare features for :func:`multiply_rows`, once for all blocks."""
    if features.device.type == "mps":  # has no float64
        features = features.cpu()
    values = features.double()
    # A unit norm, whatever its last bits, is far from where the power of two changes: 2/3 and 4/3 times one.
    _, exponent = torch.frexp(0.75 * torch.linalg.vector_norm(values, dim=1, keepdim=True))
    scales = torch.ldexp(torch.ones_like(values[:, :1]), exponent)
    values = values / scales
    coarse = (values * _GRID).round() / _GRID
    return ScaledRows(coarse, values - coarse if features.dtype == torch.float64 else None, scales)


def multiply_rows(queries: ScaledRows, candidates: ScaledRows) -> Float[Tensor, "queries candidates"]:
    """What :func:`exact_similarities` returns of prepared features."""
    sims = queries.coarse @ candidates.coarse.T
    if queries.fine is not None and candidates.fine is not None:
        sims += queries.coarse @ candidates.fine.T + queries.fine @ (candidates.coarse + candidates.fine).T
    return sims * candidates.scales.T * queries.scales


def exact_similarities(
    queries: Float[Tensor, "queries dim"], candidates: Float[Tensor, "candidates dim"]
) -> Float[Tensor, "queries candidates"]:
    """Dot products of float32 features without any rounding, float64; of float64 features nearly so."""
    return multiply_rows(scale_rows(queries), scale_rows(candidates))
