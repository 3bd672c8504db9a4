"""RGCL-g: a moving average per anchor and one learned temperature with a KL radius (FastCLIP-v3)."""

from __future__ import annotations

from typing import Literal

from bimodal_cl.losses.rules.base import AnchorStep, Direction
from bimodal_cl.losses.rules.learned_tau import LearnedTau, TauInit, TauMin
from bimodal_cl.losses.rules.moving_average import Gamma, GammaSchedule, GammaWarmup, estimate_loss
from bimodal_cl.losses.rules.radius import KLRadius, Rho, RhoFraction


class RGCLGlobal(LearnedTau, KLRadius):
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
    gamma_warmup: GammaWarmup = 0.0
    rho: Rho = 6.5
    rho_fraction: RhoFraction = None

    def anchor_losses(self, direction: Direction) -> AnchorStep:
        """Return ``tau * (log u_i + rho)`` and the new ``log_u``."""
        log_u = self.update_log_u(direction)
        log_u_of_anchor = direction.occurrences.to_local(log_u, missing=0.0)
        losses, _ = estimate_loss(direction, log_u_of_anchor)
        losses = losses + direction.tau * self.radius_of(direction.margins.num_negatives)
        return AnchorStep(losses, {"log_u": log_u}, {"log_u": log_u_of_anchor})
