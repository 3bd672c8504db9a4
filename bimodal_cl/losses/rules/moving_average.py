"""The moving average ``u_i`` of an anchor's mean odds ``g_i``, kept as its logarithm, and the loss estimated from it.

    log_u_i <- log g_i                                                        first visit
    log_u_i <- logaddexp( log(1-gamma) + log_u_i, log(gamma) + log g_i )      later

(SogCLR: Yuan et al., ICML 2022, algorithm 1.) In log space nothing overflows: no running maximum is kept with ``u``, no
epsilon, no clamp.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from jaxtyping import Float
from pydantic import Field

from bimodal_cl.losses.rules.base import Direction, TableSettings, Tensor
from bimodal_cl.settings import BelowOne, Weight

UNVISITED = -math.inf  # log_u of an anchor that has not been seen: u = 0

Gamma = Annotated[Weight, Field(description="weight of the new value in u")]
GammaSchedule = Annotated[
    Literal["constant", "cosine"], Field(description="cosine: falls from 1 to gamma over the first half")
]
GammaWarmup = Annotated[
    BelowOne, Field(description="share of the training in which gamma falls from 1, linearly, to its schedule")
]


class MovingAverage(TableSettings):
    """Base of the losses that keep ``log_u``; a loss declares ``gamma``, ``gamma_schedule`` and ``gamma_warmup``.

    ``gamma`` is the weight of the **new** value. With ``gamma_schedule="cosine"`` it falls from 1 to ``gamma`` over the
    first half of the training (FastCLIP, arXiv 2407.01445).

    An average that is old while the towers still change quickly is an estimate of features that are gone. With
    ``gamma_warmup=w``, while the share ``p < w`` of the training is done, the weight is

        1 + (gamma_p - 1) * p / w

    where ``gamma_p`` is the schedule's: at first the batch's own estimate alone (this warm-up is ours).
    """

    if TYPE_CHECKING:  # declared by each loss, with its own defaults, among its fields
        gamma: float
        gamma_schedule: Literal["constant", "cosine"]
        gamma_warmup: float

    def concerns(self) -> Iterator[str]:
        """Say that the schedule has no effect."""
        if self.gamma == 1 and self.gamma_schedule == "cosine":
            yield "gamma=1: gamma_schedule='cosine', from 1 to gamma, has no effect; lower gamma, or use 'constant'"
        if self.gamma == 1 and self.gamma_warmup > 0:
            yield f"gamma=1: gamma_warmup={self.gamma_warmup}, from 1 to gamma, has no effect; leave it out"

    def scheduled(self) -> tuple[str, ...]:
        """Return ``gamma`` if it has a schedule or a warm-up."""
        return () if self.gamma_schedule == "constant" and self.gamma_warmup == 0 else ("gamma",)

    def table_columns(self) -> dict[str, float]:
        """Return ``log_u``."""
        return {"log_u": UNVISITED}

    def gamma_at(self, progress: float) -> float:
        """Return the weight of the new value when a share of the training is done."""
        gamma = self.gamma
        if self.gamma_schedule == "cosine":
            gamma += (1 - self.gamma) * (1 + math.cos(math.pi * min(1.0, 2 * progress))) / 2
        return 1 + (gamma - 1) * progress / self.gamma_warmup if progress < self.gamma_warmup else gamma

    def update_log_u(self, direction: Direction) -> Float[Tensor, "ids 1"]:
        """Return the new ``log_u`` of every id of the global batch; several occurrences count as one mean."""
        log_g = direction.occurrences.log_mean_exp(direction.margins.log_mean_odds)
        old = direction.columns["log_u"]
        gamma = self.gamma_at(direction.progress)
        keep = math.log1p(-gamma) if gamma < 1 else -math.inf
        return log_g.where(old == UNVISITED, add_exp(keep + old, math.log(gamma) + log_g))


def add_exp(first: Float[Tensor, "ids 1"], second: Float[Tensor, "ids 1"]) -> Float[Tensor, "ids 1"]:
    """``log(exp(first) + exp(second))``, the same bits wherever in a tensor a value stands.

    The last bit of ``torch.logaddexp`` depends on the position (PyTorch 2.15, CPU), so that a row would depend on which
    other rows a rank updates with it.
    """
    difference = (first - second).abs()
    return first.maximum(second) + (-difference).exp().log1p()


def estimate_loss(
    direction: Direction, log_u: Float[Tensor, "anchors 1"]
) -> tuple[Float[Tensor, "anchors 1"], Float[Tensor, "anchors 1"]]:
    """Return the value ``tau_i * log u_i`` with gradient ``c_i = tau_i * g_i / u_i`` in the margin, and ``g_i / u_i``.

    ``g_i / u_i`` is at most ``1/gamma`` times the number of an id's occurrences.
    """
    margin = direction.margins.margin
    ratio = (direction.margins.log_mean_odds - log_u).exp()
    weight = direction.tau * ratio
    return direction.tau * log_u + weight * (margin - margin.detach()), ratio
