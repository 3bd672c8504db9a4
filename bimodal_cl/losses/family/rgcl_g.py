"""RGCL-g: a moving average per anchor and one learned temperature with a KL radius (FastCLIP-v3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from jaxtyping import Float
from pydantic import model_validator

from bimodal_cl.losses.rules.base import Anchors, AnchorStep, Direction, Learned, TableSettings, Tensor
from bimodal_cl.losses.rules.learned_tau import TauInit, TauMin, compute_learned_tau, learn_tau, require_below
from bimodal_cl.losses.rules.moving_average import COLUMNS, Gamma, GammaSchedule, MovingAverage, estimate_loss
from bimodal_cl.losses.rules.radius import KLRadius, Rho, RhoFraction, require_one_radius


class RGCLGlobal(TableSettings):
    """Robust global contrastive loss with one temperature (FastCLIP-v3, arXiv 2407.01445).

        L = tau * (mean_i log u_i + mean_i log u'_i) / 2 + tau * rho

    over images ``i`` and their ``u``, texts and their ``u'``, both moving averages of
    :mod:`bimodal_cl.losses.rules.moving_average`. Weight of an anchor's margin's gradient: ``tau * g_i / u_i``, not
    differentiated. As for the individual temperatures of ``isogclr``, the derivative in the temperature takes ``u`` for
    the mean over all negatives that it estimates:

        dL/dtau = mean_i G_i,   G_i = log u_i + rho - (g_i/u_i) * e_i       mean over the anchors of both modalities

    which is what this loss hands to the optimizer, since ``d(tau * (g_i/u_i) z_i)/dtau`` at fixed weights is
    ``-(g_i/u_i) e_i``. (The authors' code has the last term twice: each of its two passes, over a process's anchors and
    over its candidates, differentiates all of it in the temperature.) The gradient is already averaged over ranks.

    The parameter is ``logit_scale``, which is ``log(1/tau)``, as in the authors' code: their learning rates of the
    temperature (2e-4 on CC3M) are for that.

    Raises:
        ValueError: a value out of range, ``tau_min`` above ``tau_init``, or both ``rho`` and ``rho_fraction``.
    """

    name: Literal["rgcl_g"]
    tau_init: TauInit = 0.07
    tau_min: TauMin = 0.01
    gamma: Gamma = 0.2
    gamma_schedule: GammaSchedule = "cosine"
    rho: Rho = 6.5
    rho_fraction: RhoFraction = None

    @model_validator(mode="after")
    def _check(self) -> RGCLGlobal:
        require_below(self.tau_min, self.tau_init)
        require_one_radius(self, self.rho, self.rho_fraction)
        return self

    @property
    def average(self) -> MovingAverage:
        """The moving average of the mean odds."""
        return MovingAverage(self.gamma, self.gamma_schedule)

    @property
    def radius(self) -> KLRadius:
        """The KL radius."""
        return KLRadius(self.rho, self.rho_fraction)

    def concerns(self) -> Iterator[str]:
        """Say that a schedule has no effect."""
        return self.average.concerns()

    def concerns_of_batch(self, num_negatives: int) -> Iterator[str]:
        """Say that so many negatives cannot show the radius."""
        return self.radius.concerns_of_batch(num_negatives)

    def scheduled(self) -> tuple[str, ...]:
        """Return ``gamma`` if it has a schedule."""
        return self.average.scheduled

    def learned(self) -> dict[str, Learned]:
        """Return ``logit_scale``."""
        return learn_tau(self.tau_init, self.tau_min)

    def table_columns(self) -> dict[str, float]:
        """Return ``log_u``."""
        return COLUMNS

    def temperature(self, anchors: Anchors) -> Float[Tensor, "anchors 1"]:
        """Return the one learned temperature for all."""
        return compute_learned_tau(anchors).expand_as(anchors.alignment)

    def anchor_losses(self, direction: Direction) -> AnchorStep:
        """Return ``tau * (log u_i + rho)`` and the new ``log_u``."""
        log_u = self.average.update(direction)
        losses, _ = estimate_loss(direction, direction.occurrences.to_local(log_u, missing=0.0))
        return AnchorStep(losses + direction.tau * self.radius.of(direction.margins.num_negatives), {"log_u": log_u})
