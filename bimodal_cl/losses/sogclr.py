"""SogCLR: a moving average per anchor replaces the large batch."""

from __future__ import annotations

import math
import warnings
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bimodal_cl.losses.contrastive import Anchors, Direction, MarginLoss, require_between, require_choice
from bimodal_cl.losses.margin.products import Products
from bimodal_cl.losses.margin.tiles import TileSize
from bimodal_cl.losses.tables.anchors import AnchorTable
from bimodal_cl.losses.tables.occurrences import Occurrences

UNVISITED = -math.inf  # log_u of an anchor that has not been seen: u = 0


class MovingAverageLoss(MarginLoss):
    """What SogCLR and iSogCLR share: the moving average ``u_i`` of the mean odds ``g_i``, kept as its logarithm.

        log_u_i <- log g_i                                                        first visit
        log_u_i <- logaddexp( log(1-gamma) + log_u_i, log(gamma) + log g_i )      later

    (SogCLR: Yuan et al., ICML 2022, algorithm 1.) In log space nothing overflows: no running maximum beside ``u``, no
    epsilon, no clamp.

    Args:
        gamma: weight of the **new** value, in (0, 1].
        gamma_schedule: ``"constant"``, or ``"cosine"`` from 1 to gamma over the first half of training (FastCLIP,
            arXiv 2407.01445); needs :meth:`set_progress`.
        tables: ``"replicated"`` or ``"sharded"`` over the ranks; see :class:`AnchorTable`.
        table_device: ``"cpu"`` keeps the tables there; None: on the loss's device.
    """

    image_anchors: AnchorTable
    text_anchors: AnchorTable

    def __init__(
        self,
        num_images: int,
        num_texts: int,
        *,
        gamma: float,
        gamma_schedule: Literal["constant", "cosine"],
        tile_size: TileSize,
        mask_repeats: bool,
        products: Products,
        tables: Literal["replicated", "sharded"],
        table_device: Literal["cpu"] | None,
        **columns: float,
    ) -> None:
        super().__init__(num_images, num_texts, tile_size, mask_repeats, products)
        require_between("gamma", gamma, 0, 1, low_open=True)
        require_choice("gamma_schedule", gamma_schedule, ("constant", "cosine"))
        if gamma == 1 and gamma_schedule == "cosine":
            warnings.warn(
                "gamma=1: gamma_schedule='cosine', from 1 to gamma, has no effect; lower gamma, or take 'constant'",
                stacklevel=4,
            )
        self._gamma, self._gamma_schedule = gamma, gamma_schedule
        self.image_anchors = AnchorTable(num_images, tables, table_device, log_u=UNVISITED, **columns)
        self.text_anchors = AnchorTable(num_texts, tables, table_device, log_u=UNVISITED, **columns)

    @property
    def gamma(self) -> float:
        """The weight of the new value in this step."""
        if self._gamma_schedule == "constant":
            return self._gamma
        progress = min(1.0, 2 * self.scheduled_progress("gamma"))
        return self._gamma + (1 - self._gamma) * (1 + math.cos(math.pi * progress)) / 2

    def table_of(self, anchors: Anchors) -> AnchorTable:
        """Return the table of the anchors' modality."""
        return self.image_anchors if anchors.modality == "image" else self.text_anchors

    def compute_log_u(self, direction: Direction, occurrences: Occurrences) -> Float[Tensor, "ids 1"]:
        """Return the updated ``log_u`` of every id of the global batch; several occurrences count as one mean."""
        log_g = occurrences.log_mean_exp(direction.margins.log_mean_odds)
        old = self.table_of(direction).look_up("log_u", occurrences.ids)
        gamma = self.gamma
        keep = math.log1p(-gamma) if gamma < 1 else -math.inf
        return torch.where(old == UNVISITED, log_g, add_exp(keep + old, math.log(gamma) + log_g))


def add_exp(first: Float[Tensor, "ids 1"], second: Float[Tensor, "ids 1"]) -> Float[Tensor, "ids 1"]:
    """``log(exp(first) + exp(second))``, the same bits wherever in a tensor a value stands.

    The last bit of ``torch.logaddexp`` depends on it (PyTorch 2.15, CPU), so that a row would not be the same when a
    rank updates it among others than another rank does.
    """
    difference = (first - second).abs()
    return torch.maximum(first, second) + torch.log1p(torch.exp(-difference))


def compute_estimated_loss(
    direction: Direction, log_u: Float[Tensor, "anchors 1"]
) -> tuple[Float[Tensor, "anchors 1"], Float[Tensor, "anchors 1"]]:
    """Return the value ``tau_i * log u_i`` with gradient ``c_i = tau_i * g_i / u_i`` in the margin, and ``g_i / u_i``.

    ``g_i / u_i`` is at most ``1/gamma`` times the number of an id's occurrences.
    """
    margin = direction.margins.margin
    ratio = torch.exp(direction.margins.log_mean_odds - log_u)
    weight = direction.tau * ratio
    return direction.tau * log_u + weight * (margin - margin.detach()), ratio


class SogCLRLoss(MovingAverageLoss):
    """SogCLR (Yuan et al., ICML 2022) over image-text pairs: a fixed temperature, no large batch needed.

    Loss of anchor i: ``tau * log u_i``; weight of its margin's gradient: ``tau * g_i / u_i``, not differentiated. With
    ``gamma_schedule="cosine"`` this is FastCLIP-v1.

    Args:
        tau: temperature, > 0.
        gamma: see :class:`MovingAverageLoss`; so are ``gamma_schedule``, ``tables`` and ``table_device``.
    """

    def __init__(
        self,
        num_images: int,
        num_texts: int,
        *,
        tau: float = 0.05,
        gamma: float = 0.8,
        gamma_schedule: Literal["constant", "cosine"] = "constant",
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
        require_between("tau", tau, 0, math.inf, low_open=True)
        self.tau = tau

    def temperature(self, anchors: Anchors) -> Float[Tensor, "anchors 1"]:
        """Return the fixed temperature for all."""
        return torch.full_like(anchors.alignment, self.tau)

    def anchor_losses(self, direction: Direction) -> Float[Tensor, "anchors 1"]:
        """Update ``log_u`` and return ``tau * log u_i``."""
        occurrences = direction.occurrences
        log_u = self.compute_log_u(direction, occurrences)
        if self.training:
            self.table_of(direction).update_(occurrences.ids, log_u=log_u)
        losses, _ = compute_estimated_loss(direction, occurrences.to_local(log_u, missing=0.0))
        return losses
