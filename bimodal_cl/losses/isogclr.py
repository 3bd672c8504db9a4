"""iSogCLR: every image anchor and every text anchor keeps and learns its own temperature."""

from __future__ import annotations

import math
import warnings
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from bimodal_cl.losses.contrastive import Anchors, Direction, require_between
from bimodal_cl.losses.margin.products import Products
from bimodal_cl.losses.margin.tiles import TileSize
from bimodal_cl.losses.radius import KLRadius
from bimodal_cl.losses.sogclr import MovingAverageLoss, compute_estimated_loss
from bimodal_cl.losses.tables.occurrences import Occurrences
from bimodal_cl.losses.tables.tau_descent import StepSize, build_descent

MAX_TAU_GRADIENT = 5.0


class ISogCLRLoss(MovingAverageLoss):
    """iSogCLR (Qiu et al., ICML 2023, algorithm 1) over image-text pairs: every anchor learns its own temperature.

    Loss of anchor i: ``tau_i * log u_i + tau_i * rho``; weight of its margin's gradient: ``tau_i * g_i / u_i``. The
    temperature solves a distributionally robust problem with KL radius ``rho`` over the anchor's negatives:

        G_i      = log_u_i + rho - (g_i/u_i) * e_i                   derivative of the loss in tau_i
        tau_grad <- (1-beta) * tau_grad + beta * clip(G_i, -5, 5)
        tau_i    <- clip(tau_i - eta * tau_grad, tau_min, tau_max)

    with the updated ``log_u``. A step's loss uses the temperature from before its update. A frequent meaning has many
    near negatives, hence a large temperature; a rare one a small temperature.

    With ``tau_optimizer="adam"`` and ``gamma_schedule="cosine"`` this is FastCLIP-v2 (arXiv 2407.01445): the clipped
    gradient goes through :class:`~bimodal_cl.losses.tables.tau_descent.Adam` instead. (The authors' code leaves the
    factor ``tau_i`` out of the margin's weight there; here it is the derivative of the loss above.)

    Args:
        tau_init: temperature of an anchor at first.
        tau_min: lower bound, > 0.
        tau_max: upper bound.
        gamma: see :class:`MovingAverageLoss`; so is ``gamma_schedule``.
        rho: KL radius, >= 0; so is ``rho_fraction``: see :class:`~bimodal_cl.losses.radius.KLRadius`.
        beta: ``momentum``: weight of the **new** gradient, in (0, 1].
        eta: step size of the temperature, > 0; FastCLIP-v2 has 0.0133 with Adam.
        eta_schedule: ``"constant"``, or falling over the training by ``"cosine"`` or ``"exp"``, which need
            :meth:`set_progress`; see :class:`~bimodal_cl.losses.tables.tau_descent.StepSize`, also for ``eta_min`` and
            ``eta_decay``.
        tau_optimizer: ``"momentum"`` or ``"adam"``.
        adam_beta1: ``adam``: weight of the **old** mean gradient, in [0, 1); see
            :class:`~bimodal_cl.losses.tables.tau_descent.Adam`, also for ``adam_beta2`` and ``adam_eps``.
        tables: see :class:`~bimodal_cl.losses.tables.anchors.AnchorTable`; so is ``table_device``.

    Raises:
        ValueError: a value out of range, bounds that do not enclose ``tau_init``, or a value without effect.
    """

    def __init__(
        self,
        num_images: int,
        num_texts: int,
        *,
        tau_init: float = 0.01,
        tau_min: float = 0.005,
        tau_max: float = 1.0,
        gamma: float = 0.8,
        gamma_schedule: Literal["constant", "cosine"] = "constant",
        rho: float = 6.0,
        rho_fraction: float | None = None,
        beta: float = 0.9,
        eta: float = 0.03,
        eta_schedule: Literal["constant", "cosine", "exp"] = "constant",
        eta_min: float = 1e-4,
        eta_decay: float = 0.00124,
        tau_optimizer: Literal["momentum", "adam"] = "momentum",
        adam_beta1: float = 0.9,
        adam_beta2: float = 0.999,
        adam_eps: float = 1e-8,
        tile_size: TileSize = "auto",
        mask_repeats: bool = True,
        products: Products = "float32",
        tables: Literal["replicated", "sharded"] = "replicated",
        table_device: Literal["cpu"] | None = None,
    ) -> None:
        descent = build_descent(tau_optimizer, beta, adam_beta1, adam_beta2, adam_eps)
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
            tau=tau_init,
            **descent.columns,
        )
        require_between("tau_min", tau_min, 0, math.inf, low_open=True)
        require_between("tau_max", tau_max, 0, math.inf)
        if tau_min > tau_max:
            raise ValueError(f"tau_min={tau_min} must not exceed tau_max={tau_max}")
        require_between("tau_init", tau_init, tau_min, tau_max)
        if tau_min == tau_max:
            warnings.warn(
                f"tau_min=tau_max={tau_min}: no temperature can move, so eta, rho and beta have no effect on them; "
                "widen the bounds, or take sogclr",
                stacklevel=3,
            )
        self.tau_min, self.tau_max, self.descent = tau_min, tau_max, descent
        self.rho = KLRadius(rho, 6.0, rho_fraction)
        self.eta = StepSize(eta, eta_schedule, eta_min, eta_decay)

    def temperature(self, anchors: Anchors) -> Float[Tensor, "anchors 1"]:
        """Look the anchors' own temperatures up, as they are before this step's update."""
        return anchors.occurrences.gather("tau")

    def anchor_losses(self, direction: Direction) -> Float[Tensor, "anchors 1"]:
        """Return ``tau_i * (log u_i + rho)`` and update ``log_u``, ``tau`` and the averages of its gradient."""
        occurrences = direction.occurrences
        log_u = self.compute_log_u(direction, occurrences)
        log_u_of_anchor = occurrences.to_local(log_u, missing=0.0)
        losses, ratio = compute_estimated_loss(direction, log_u_of_anchor)
        rho = self.rho(direction.margins.num_negatives)
        if self.training:
            gradient = occurrences.mean(log_u_of_anchor + rho - ratio * direction.margins.tau_slope)
            self._update_temperatures(direction, occurrences, log_u, gradient)
        return losses + direction.tau * rho

    def _update_temperatures(
        self, direction: Direction, occurrences: Occurrences, log_u: Tensor, gradient: Float[Tensor, "ids 1"]
    ) -> None:
        table, ids = self.table_of(direction), occurrences.ids
        state = {column: table.look_up(column, ids) for column in self.descent.columns}
        step, state = self.descent(gradient.clamp(-MAX_TAU_GRADIENT, MAX_TAU_GRADIENT), state)
        tau = table.look_up("tau", ids) - self.eta(self.scheduled_progress) * step
        table.update_(ids, log_u=log_u, tau=tau.clamp(self.tau_min, self.tau_max), **state)
