"""SigLIP: a binary decision for every image-text pair, matching or not."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bimodal_cl.losses.rules.base import Anchors, FeatureLoss, Features, Learned, Negatives
from bimodal_cl.losses.rules.learned_tau import LearnedTau, TauInit, TauMin, compute_learned_tau
from bimodal_cl.settings import NotTruth


class SigLIP(LearnedTau):
    """Sigmoid loss (Zhai et al., ICCV 2023, arXiv 2303.15343) over the global batch.

        l_ij = s_ij / tau + bias
        L    = 1/B * sum_i ( softplus(-l_ii) + sum_{j in N_i} softplus(l_ij) )

    Without repeats in the batch this is open_clip's ``SigLipLoss``, on one process and, averaged over ranks, on many.
    open_clip's loss cannot leave pairs out, hence the computation in :mod:`bimodal_cl.losses.pairwise.sigmoid`: with
    ``mask_repeats`` the pairs that share an image or a caption are neither matching nor not matching and take no part.
    A positive takes part in any case, also where nothing in the batch is its negative.

    Two numbers are learned, both with a gradient already averaged over ranks: ``logit_scale``, which is
    ``log(1/tau)``, and ``logit_bias``. The initial values are open_clip's; the bias makes the many pairs that do not
    match a small loss at first.

    Raises:
        ValueError: ``tau_min`` exceeds ``tau_init``, or a value is out of range.
    """

    name: Literal["siglip"]
    tau_init: TauInit = 0.1
    tau_min: TauMin = 0.01
    bias_init: Annotated[float, Field(ge=-1e4, le=1e4), NotTruth] = Field(
        -10.0, description="initial bias of the logits"
    )

    def learned(self) -> dict[str, Learned]:
        """Return ``logit_scale`` and ``logit_bias``."""
        return {**super().learned(), "logit_bias": Learned(self.bias_init)}

    def feature_loss(self, images: Features, texts: Features, anchors: Anchors, negatives: Negatives) -> FeatureLoss:
        """Return the mean over this process's images of their pairs' losses."""
        from bimodal_cl.losses.pairwise.sigmoid import SigmoidFunction

        scale, bias = 1 / compute_learned_tau(anchors), anchors.learned["logit_bias"]
        return SigmoidFunction.apply(images, texts, scale, bias, negatives, self.tile_size), images, texts
