"""iSogCLR: every image anchor and every text anchor keeps and learns its own temperature."""

from __future__ import annotations

import math
import warnings
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bimodal_cl.losses.contrastive import Anchors, Direction, require_between
from bimodal_cl.losses.occurrences import Occurrences
from bimodal_cl.losses.sogclr import MovingAverageLoss, compute_estimated_loss

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

    Args:
        tau_init: temperature of an anchor at first.
        tau_min: lower bound, > 0.
        tau_max: upper bound.
        gamma: see :class:`MovingAverageLoss`; so is ``gamma_schedule``.
        rho: KL radius, >= 0. A batch shows at most ``log n_i``; above that every temperature falls to ``tau_min``,
            which is warned of once.
        rho_fraction: sets ``rho_i = rho_fraction * log n_i`` instead, in [0, 1], so that a recipe carries over to
            another batch size; ``rho`` must then be left alone.
        beta: weight of the new gradient, in (0, 1].
        eta: step size of the temperature, > 0.
        tables: see :class:`~bimodal_cl.losses.anchors.AnchorTable`; so is ``table_device``.

    Raises:
        ValueError: a value out of range, or bounds that do not enclose ``tau_init``.
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
        tile_size: int | None = None,
        mask_repeats: bool = True,
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
            tables=tables,
            table_device=table_device,
            tau=tau_init,
            tau_grad=0.0,
        )
        require_between("tau_min", tau_min, 0, math.inf, low_open=True)
        if tau_min > tau_max:
            raise ValueError(f"tau_min={tau_min} must not exceed tau_max={tau_max}")
        require_between("tau_init", tau_init, tau_min, tau_max)
        require_between("rho", rho, 0, math.inf)
        require_between("beta", beta, 0, 1, low_open=True)
        require_between("eta", eta, 0, math.inf, low_open=True)
        if rho_fraction is not None:
            require_between("rho_fraction", rho_fraction, 0, 1)
            if rho != 6.0:
                raise ValueError(f"rho={rho} and rho_fraction={rho_fraction}: give one of them")
        self.tau_min, self.tau_max, self.beta, self.eta = tau_min, tau_max, beta, eta
        self.rho, self.rho_fraction = rho, rho_fraction
        self._rho_was_compared = False

    def temperature(self, anchors: Anchors) -> Float[Tensor, "anchors 1"]:
        """Look the anchors' own temperatures up, as they are before this step's update."""
        return anchors.occurrences.gather("tau")

    def anchor_losses(self, direction: Direction) -> Float[Tensor, "anchors 1"]:
        """Return ``tau_i * (log u_i + rho)`` and update ``log_u``, ``tau_grad`` and ``tau``."""
        occurrences = direction.occurrences
        log_u = self.compute_log_u(direction, occurrences)
        log_u_of_anchor = occurrences.to_local(log_u, missing=0.0)
        losses, ratio = compute_estimated_loss(direction, log_u_of_anchor)
        rho = self._rho_of(direction)
        if self.training:
            gradient = occurrences.mean(log_u_of_anchor + rho - ratio * direction.margins.tau_slope)
            self._update_temperatures(direction, occurrences, log_u, gradient)
        return losses + direction.tau * rho

    def _update_temperatures(
        self, direction: Direction, occurrences: Occurrences, log_u: Tensor, gradient: Float[Tensor, "ids 1"]
    ) -> None:
        table, ids = self.table_of(direction), occurrences.ids
        clipped = gradient.clamp(-MAX_TAU_GRADIENT, MAX_TAU_GRADIENT)
        tau_grad = (1 - self.beta) * table.look_up("tau_grad", ids) + self.beta * clipped
        tau = (table.look_up("tau", ids) - self.eta * tau_grad).clamp(self.tau_min, self.tau_max)
        table.update_(ids, log_u=log_u, tau_grad=tau_grad, tau=tau)

    def _rho_of(self, direction: Direction) -> Float[Tensor, "anchors 1"]:
        log_n = direction.margins.num_negatives.clamp(min=1).log()
        if self.rho_fraction is not None:
            return self.rho_fraction * log_n
        if not self._rho_was_compared:
            self._rho_was_compared = True
            largest = log_n.max().item()
            if self.rho > largest:
                warnings.warn(
                    f"rho={self.rho} exceeds {largest:.3g} = log of the {math.exp(largest):.0f} negatives of a batch: "
                    "every temperature will fall to tau_min; lower rho or set rho_fraction",
                    stacklevel=4,
                )
        return torch.full_like(log_n, self.rho)
