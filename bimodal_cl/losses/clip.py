"""CLIP: cross-entropy with one learned temperature."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from bimodal_cl.losses.contrastive import Anchors, Direction, MarginLoss
from bimodal_cl.losses.learned_tau import compute_learned_tau, learn_tau
from bimodal_cl.losses.margin import compute_softplus
from bimodal_cl.losses.margin.products import Products
from bimodal_cl.losses.margin.tiles import TileSize


class CLIPLoss(MarginLoss):
    """Symmetric cross-entropy over the global batch (Radford et al. 2021, figure 3).

        L_i = softplus(z_i),   dL_i/dz_i = sigmoid(z_i) = 1 - P(positive)

    which is the cross-entropy ``-log( exp(s_ii/tau) / (exp(s_ii/tau) + sum_{j in N_i} exp(s_ij/tau)) )``. With
    ``mask_repeats=False`` it equals open_clip's ``ClipLoss``; with the default, pairs that share an image or a caption
    are no negatives.

    The temperature is learned as open_clip does: the parameter ``logit_scale`` is ``log(1/tau)``. Its gradient is
    already averaged over ranks.

    Args:
        tau_init: initial temperature, > 0.
        tau_min: the temperature does not fall below it, > 0 (open_clip: 0.01).

    Raises:
        ValueError: ``tau_min`` is not positive or exceeds ``tau_init``.
    """

    logit_scale: nn.Parameter

    def __init__(
        self,
        num_images: int | None = None,
        num_texts: int | None = None,
        *,
        tau_init: float = 0.07,
        tau_min: float = 0.01,
        tile_size: TileSize = "auto",
        mask_repeats: bool = True,
        products: Products = "float32",
    ) -> None:
        super().__init__(num_images, num_texts, tile_size, mask_repeats, products)
        learn_tau(self, tau_init, tau_min)
        self.tau_min = tau_min

    def temperature(self, anchors: Anchors) -> Float[Tensor, "anchors 1"]:
        """Return the one learned temperature for all."""
        return compute_learned_tau(self.logit_scale, self.tau_min).expand_as(anchors.alignment)

    def anchor_losses(self, direction: Direction) -> Float[Tensor, "anchors 1"]:
        """Return ``softplus(z_i)``."""
        return compute_softplus(direction.margins.margin)
