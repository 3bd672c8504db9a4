"""CyCLIP: cross-entropy, and the demand that images and texts have the same geometry."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bimodal_cl.distributed import reduce_sum, world_size
from bimodal_cl.losses.clip import CLIPLoss
from bimodal_cl.losses.contrastive import Anchors, require_between
from bimodal_cl.losses.margin import Negatives
from bimodal_cl.losses.margin_products import Products
from bimodal_cl.losses.margin_tiles import TileSize


class CyCLIPLoss(CLIPLoss):
    """CyCLIP (Goel et al., NeurIPS 2022): CLIP's loss and two terms of cyclic consistency over the global batch.

        L = L_clip + lambda_in_modal * C_in + lambda_cross_modal * C_cross
        C_in    = 1/B * sum_jk ( <x_j, x_k> - <y_j, y_k> )^2        two images are as similar as their texts
        C_cross = 1/B * sum_jk ( <x_j, y_k> - <x_k, y_j> )^2        image j and text k as similar as image k and text j

    No temperature enters the two terms. They push nothing apart, so there are no negatives in them and ``mask_repeats``
    concerns the cross-entropy alone: pairs that share an image or a caption are to be consistent like all others.

    See :class:`CyclicTerms` for how they are computed without a similarity of two pairs ever being held.

    Args:
        tau_init: see :class:`CLIPLoss`; so is ``tau_min``.
        lambda_in_modal: weight of ``C_in``, >= 0 (the paper's lambda_1).
        lambda_cross_modal: weight of ``C_cross``, >= 0 (the paper's lambda_2).

    Raises:
        ValueError: a value out of range, or both weights 0, which is ``clip``.
    """

    def __init__(
        self,
        num_images: int | None = None,
        num_texts: int | None = None,
        *,
        tau_init: float = 0.07,
        tau_min: float = 0.01,
        lambda_in_modal: float = 0.25,
        lambda_cross_modal: float = 0.25,
        tile_size: TileSize = "auto",
        mask_repeats: bool = True,
        products: Products = "float32",
    ) -> None:
        super().__init__(
            num_images,
            num_texts,
            tau_init=tau_init,
            tau_min=tau_min,
            tile_size=tile_size,
            mask_repeats=mask_repeats,
            products=products,
        )
        require_between("lambda_in_modal", lambda_in_modal, 0, math.inf)
        require_between("lambda_cross_modal", lambda_cross_modal, 0, math.inf)
        if lambda_in_modal == lambda_cross_modal == 0:
            raise ValueError("lambda_in_modal=0 and lambda_cross_modal=0 leave the loss 'clip': choose that")
        self.lambda_in_modal, self.lambda_cross_modal = lambda_in_modal, lambda_cross_modal

    def local_loss(
        self,
        image_features: Float[Tensor, "batch dim"],
        text_features: Float[Tensor, "batch dim"],
        image: Anchors,
        text: Anchors,
        negatives: Negatives,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "batch 1"], Float[Tensor, "batch 1"]]:
        """Add the cyclic terms to the cross-entropy."""
        local, tau_image, tau_text = super().local_loss(image_features, text_features, image, text, negatives)
        terms = CyclicTerms(image_features, text_features)
        cyclic = self.lambda_in_modal * terms.in_modal + self.lambda_cross_modal * terms.cross_modal
        return local + cyclic, tau_image, tau_text


class CyclicTerms:
    """``C_in`` and ``C_cross`` of the global batch, equal on every rank, from three ``[dim, dim]`` matrices.

    With ``X``, ``Y`` the global batch's features, ``S_xx = X'X``, ``S_yy = Y'Y`` and ``S_xy = X'Y``:

        C_in    = ( |XX' - YY'|^2 ) / B = ( |S_xx|^2 + |S_yy|^2 - 2 |S_xy|^2 ) / B
        C_cross = ( |XY' - YX'|^2 ) / B = 2 ( <S_xx, S_yy> - <S_xy, S_xy'> ) / B

    since the trace of a product does not change when its factors are moved round. Time ``O(B dim^2)``, memory
    ``O(dim^2)``, no B x B matrix; exact, with a rounding error of about ``B`` times that of the features' type.

    **Ranks.** The matrices are sums over pairs: each rank adds its own up, one all-reduce joins them. The gradient
    taken on a rank is that of the sum of all ranks' losses in its own features: the matrices' derivative in its own
    features times the number of ranks, each of which reports this value.

    Attributes:
        in_modal: ``C_in``.
        cross_modal: ``C_cross``.
    """

    def __init__(self, image_features: Float[Tensor, "batch dim"], text_features: Float[Tensor, "batch dim"]) -> None:
        num_pairs = image_features.shape[0] * world_size()
        if num_pairs == 1:  # consistent with itself, without a rounding error
            self.in_modal = self.cross_modal = image_features.new_zeros(())
            return
        own = torch.stack(
            [
                image_features.T @ image_features,
                text_features.T @ text_features,
                image_features.T @ text_features,
            ]
        )
        mine = own * world_size()
        images, texts, mixed = mine + (reduce_sum(own) - mine).detach()  # all ranks' value, this rank's gradient
        self.in_modal = (images.square().sum() + texts.square().sum() - 2 * mixed.square().sum()) / num_pairs
        self.cross_modal = 2 * ((images * texts).sum() - (mixed * mixed.T).sum()) / num_pairs
