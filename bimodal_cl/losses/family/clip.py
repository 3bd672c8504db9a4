"""CLIP: cross-entropy with one learned temperature."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import model_validator

from bimodal_cl.losses.rules.base import Anchors, AnchorStep, Direction, Learned, MarginSettings, Tensor
from bimodal_cl.losses.rules.learned_tau import TauInit, TauMin, compute_learned_tau, learn_tau, require_below


class CLIP(MarginSettings):
    """Symmetric cross-entropy over the global batch (Radford et al. 2021, figure 3).

        L_i = softplus(z_i),   dL_i/dz_i = sigmoid(z_i) = 1 - P(positive)

    which is the cross-entropy ``-log( exp(s_ii/tau) / (exp(s_ii/tau) + sum_{j in N_i} exp(s_ij/tau)) )``. With
    ``mask_repeats=False`` it equals open_clip's ``ClipLoss``; with the default, pairs that share an image or a caption
    are no negatives.

    The temperature is learned as open_clip does: the parameter ``logit_scale`` is ``log(1/tau)``. Its gradient is
    already averaged over ranks. open_clip's lower bound is that of ``tau_min``, too: 0.01.

    Raises:
        ValueError: ``tau_min`` exceeds ``tau_init``, or a value is out of range.
    """

    name: Literal["clip"]
    tau_init: TauInit = 0.07
    tau_min: TauMin = 0.01

    @model_validator(mode="after")
    def _check(self) -> CLIP:
        require_below(self.tau_min, self.tau_init)
        return self

    def learned(self) -> dict[str, Learned]:
        """Return ``logit_scale``."""
        return learn_tau(self.tau_init, self.tau_min)

    def temperature(self, anchors: Anchors) -> Float[Tensor, "anchors 1"]:
        """Return the one learned temperature for all."""
        return compute_learned_tau(anchors).expand_as(anchors.alignment)

    def anchor_losses(self, direction: Direction) -> AnchorStep:
        """Return ``softplus(z_i)``."""
        from bimodal_cl.losses.margin import compute_softplus

        return AnchorStep(compute_softplus(direction.margins.margin))
