"""SogCLR: a moving average per anchor replaces the large batch."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field

from bimodal_cl.losses.rules.base import Anchors, AnchorStep, Direction, Tensor
from bimodal_cl.losses.rules.moving_average import Gamma, GammaSchedule, GammaWarmup, MovingAverage, estimate_loss
from bimodal_cl.settings import Positive


class SogCLR(MovingAverage):
    """SogCLR (Yuan et al., ICML 2022) over image-text pairs: a fixed temperature, no large batch needed.

    Loss of anchor i: ``tau * log u_i``; weight of its margin's gradient: ``tau * g_i / u_i``, not differentiated, with
    the moving average of :mod:`bimodal_cl.losses.rules.moving_average`. With ``gamma_schedule="cosine"`` this is
    FastCLIP-v1 (arXiv 2407.01445).
    """

    name: Literal["sogclr"]
    tau: Positive = Field(0.05, description="fixed temperature")
    gamma: Gamma = 0.8
    gamma_schedule: GammaSchedule = "constant"
    gamma_warmup: GammaWarmup = 0.0

    def temperature(self, anchors: Anchors) -> Float[Tensor, "anchors 1"]:
        """Return the fixed temperature for all."""
        return anchors.alignment.new_full(anchors.alignment.shape, self.tau)

    def anchor_losses(self, direction: Direction) -> AnchorStep:
        """Return ``tau * log u_i`` and the new ``log_u``."""
        log_u = self.update_log_u(direction)
        log_u_of_anchor = direction.occurrences.to_local(log_u, missing=0.0)
        losses, _ = estimate_loss(direction, log_u_of_anchor)
        return AnchorStep(losses, {"log_u": log_u}, {"log_u": log_u_of_anchor})
