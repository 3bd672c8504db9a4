"""CyCLIP: cross-entropy with two penalties that make images and texts agree in their geometry."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from bimodal_cl.losses.clip import CLIP
from bimodal_cl.losses.rules.base import Anchors, FeatureLoss, Features, Negatives
from bimodal_cl.settings import NotNegative


class CyCLIP(CLIP):
    """CyCLIP (Goel et al., NeurIPS 2022): CLIP's loss and two terms of cyclic consistency over the global batch.

        L = L_clip + lambda_in_modal * C_in + lambda_cross_modal * C_cross
        C_in    = 1/B * sum_jk ( <x_j, x_k> - <y_j, y_k> )^2        two images are as similar as their texts
        C_cross = 1/B * sum_jk ( <x_j, y_k> - <x_k, y_j> )^2        image j and text k as similar as image k and text j

    No temperature enters the two terms. They push nothing apart, so there are no negatives in them and ``mask_repeats``
    concerns the cross-entropy alone: pairs that share an image or a caption are to be consistent like all others. The
    weights are the paper's lambda_1 and lambda_2.

    :class:`~bimodal_cl.losses.pairwise.cyclic.CyclicFunction` computes them without ever holding the similarity of two
    pairs.

    Raises:
        ValueError: a value out of range, or both weights 0, which is ``clip``.
    """

    name: Literal["cyclip"]  # type: ignore[assignment]
    lambda_in_modal: NotNegative = Field(0.25, description="weight: two images are as similar as their texts")
    lambda_cross_modal: NotNegative = Field(0.25, description="weight: image j, text k as similar as image k, text j")

    @model_validator(mode="after")
    def _has_a_weight(self) -> CyCLIP:
        if self.lambda_in_modal == self.lambda_cross_modal == 0:
            raise ValueError("lambda_in_modal=0 and lambda_cross_modal=0 leave only the loss 'clip': use that")
        return self

    def feature_loss(self, images: Features, texts: Features, anchors: Anchors, negatives: Negatives) -> FeatureLoss:
        """Return the two weighted terms, and the features for the cross-entropy."""
        from bimodal_cl.losses.pairwise.cyclic import CyclicFunction

        return CyclicFunction.apply(images, texts, self.lambda_in_modal, self.lambda_cross_modal)
