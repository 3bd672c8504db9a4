"""RGCL-g: a moving average per anchor and one learned temperature with a KL radius (FastCLIP-v3)."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from bimodal_cl.losses.contrastive import Anchors, Direction
from bimodal_cl.losses.learned_tau import compute_learned_tau, learn_tau
from bimodal_cl.losses.margin.products import Products
from bimodal_cl.losses.margin.tiles import TileSize
from bimodal_cl.losses.radius import KLRadius
from bimodal_cl.losses.sogclr import MovingAverageLoss, compute_estimated_loss


class RGCLGlobalLoss(MovingAverageLoss):
    """Robust global contrastive loss with one temperature (FastCLIP-v3, arXiv 2407.01445).

        L = tau * (mean_i log u_i + mean_i log u'_i) / 2 + tau * rho

    over images ``i`` and their ``u``, texts and their ``u'``, both moving averages as in :class:`MovingAverageLoss`.
    Weight of an anchor's margin's gradient: ``tau * g_i / u_i``, not differentiated. As for the individual temperatures
    of ``isogclr``, the derivative in the temperature takes ``u`` for the mean over all negatives that it estimates:

        dL/dtau = mean_i G_i,   G_i = log u_i + rho - (g_i/u_i) * e_i       mean over the anchors of both modalities

    which is what this loss hands to the optimizer, since ``d(tau * (g_i/u_i) z_i)/dtau`` at fixed weights is
    ``-(g_i/u_i) e_i``. (The authors' code has the last term twice: each of its two passes, over a process's anchors and
    over its candidates, differentiates all of it in the temperature.) The gradient is already averaged over ranks.

    The parameter is ``logit_scale``, which is ``log(1/tau)``, as in the authors' code: their learning rates of the
    temperature (2e-4 on CC3M) are for that.

    Args:
        tau_init: initial temperature.
        tau_min: the temperature does not fall below it, > 0.
        gamma: see :class:`MovingAverageLoss`; so are ``gamma_schedule``, ``tables`` and ``table_device``.
        rho: KL radius, >= 0; so is ``rho_fraction``: see :class:`~bimodal_cl.losses.radius.KLRadius`.

    Raises:
        ValueError: a value out of range, or ``tau_min`` above ``tau_init``.
    """

    logit_scale: nn.Parameter

    def __init__(
        self,
        num_images: int,
        num_texts: int,
        *,
        tau_init: float = 0.07,
        tau_min: float = 0.01,
        gamma: float = 0.2,
        gamma_schedule: Literal["constant", "cosine"] = "cosine",
        rho: float = 6.5,
        rho_fraction: float | None = None,
        tile_size: TileSize = "auto",
        mask_repeats: bool = True,
        products: Products = "float32",
        tables: Literal["replicated", "sharded"] = "replicated",
        table_device: Literal["cpu"] | None = None,
    ) -> None:
        super().__init__(
            num_images,
            num_texts,
            gamma=gamma,
            gamma_schedule=gamma_schedule,
            tile_size=tile_size,
            mask_repeats=mask_repeats,
            products=products,
            tables=tables,
            table_device=table_device,
        )
        learn_tau(self, tau_init, tau_min)
        self.tau_min = tau_min
        self.rho = KLRadius(rho, 6.5, rho_fraction)

    def temperature(self, anchors: Anchors) -> Float[Tensor, "anchors 1"]:
        """Return the one learned temperature for all."""
        return compute_learned_tau(self.logit_scale, self.tau_min).expand_as(anchors.alignment)

    def anchor_losses(self, direction: Direction) -> Float[Tensor, "anchors 1"]:
        """Update ``log_u`` and return ``tau * (log u_i + rho)``."""
        rho = self.rho(direction.margins.num_negatives)  # may warn, so it comes before anything moves
        occurrences = direction.occurrences
        log_u = self.compute_log_u(direction, occurrences)
        if self.training:
            self.table_of(direction).update_(occurrences.ids, log_u=log_u)
        losses, _ = compute_estimated_loss(direction, occurrences.to_local(log_u, missing=0.0))
        return losses + direction.tau * rho
