"""Operands of a step, and running sums of exponentials that never overflow; both kernels use them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bimodal_cl.losses.margin.negatives import MASKED, Negatives


class GlobalBatch(NamedTuple):
    """The operands of a step's similarities, equal on every rank.

    Attributes:
        images: features, in the type that they are multiplied in; ``texts`` likewise.
        tau_images: temperatures of the image anchors, in the type of all sums and gradients; ``tau_texts`` likewise.
        negatives: which pairs are negatives of each other.
    """

    images: Float[Tensor, "candidates dim"]
    texts: Float[Tensor, "candidates dim"]
    tau_images: Float[Tensor, "candidates 1"]
    tau_texts: Float[Tensor, "candidates 1"]
    negatives: Negatives


class Pulls(NamedTuple):
    """One direction's ``dL/ds_ij = scale_i * exp((s_ij - level_i) / tau_i)`` for the negatives of its anchors.

    Attributes:
        tau: temperatures.
        level: ``s_ii + tau_i z_i``, the smooth maximum of the similarities to the negatives.
        scale: ``c_i / tau_i``; 0 for anchors without negatives.
    """

    tau: Float[Tensor, "anchors 1"]
    level: Float[Tensor, "anchors 1"]
    scale: Float[Tensor, "anchors 1"]

    def of(self, anchors: slice) -> Pulls:
        """Return the values of some of the anchors."""
        return Pulls(*(values[anchors] for values in self))


class Sums(NamedTuple):
    """Sums over some candidates of each anchor, with ``w_j = exp((s_j - peak) / tau)``.

    Attributes:
        peak: not less than any ``s_j``; ``MASKED`` where there is no negative.
        total: ``sum_j w_j``.
        weighted: ``sum_j w_j s_j``.
    """

    peak: Float[Tensor, "anchors 1"]
    total: Float[Tensor, "anchors 1"]
    weighted: Float[Tensor, "anchors 1"]


class RunningSums:
    """The sums of many anchors over the candidates seen so far.

    Args:
        tau: the anchors' temperatures.

    Attributes:
        sums: of all candidates seen.
    """

    def __init__(self, tau: Float[Tensor, "anchors 1"]) -> None:
        self._tau = tau
        self.sums = Sums(torch.full_like(tau, MASKED), torch.zeros_like(tau), torch.zeros_like(tau))

    def add_(self, anchors: slice, more: Sums) -> None:
        """Add sums of the given anchors over further candidates. Sums over ``MASKED`` candidates change nothing."""
        peak, total, weighted = (values[anchors] for values in self.sums)
        higher = torch.maximum(peak, more.peak)
        shrink, shrink_more = (torch.exp((old - higher) / self._tau[anchors]) for old in (peak, more.peak))
        total.mul_(shrink).add_(more.total * shrink_more)
        weighted.mul_(shrink).add_(more.weighted * shrink_more)
        peak.copy_(higher)

    def level_and_mean(self, anchors: slice, alone: Tensor) -> tuple[Tensor, Tensor]:
        """``tau log sum_j exp(s_j / tau)`` and ``sum_j softmax_j(s / tau) s_j``; both 0 where ``alone``."""
        peak, total, weighted = (values[anchors] for values in self.sums)
        total = total.masked_fill(alone, 1)
        level = (peak + self._tau[anchors] * total.log()).masked_fill(alone, 0)
        return level, (weighted / total).masked_fill(alone, 0)
