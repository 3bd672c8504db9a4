"""CLIP: cross-entropy with one learned temperature."""

from __future__ import annotations

from typing import Literal

from bimodal_cl.losses.rules.base import AnchorStep, Direction, MarginSettings
from bimodal_cl.losses.rules.learned_tau import LearnedTau, TauInit, TauMin


class CLIP(LearnedTau, MarginSettings):
    """Symmetric cross-entropy over the global batch (Radford et al. 2021, figure 3).

        L_i = softplus(z_i),   dL_i/dz_i = sigmoid(z_i) = 1 - P(positive)

    which is the cross-entropy ``-log( exp(s_ii/tau) / (exp(s_ii/tau) + sum_{j in N_i} exp(s_ij/tau)) )``. With
    ``mask_repeats=False`` it equals open_clip's ``ClipLoss``; with the default, pairs that share an image or a caption
    are not negatives.

    The temperature is learned as in open_clip: the parameter ``logit_scale`` is ``log(1/tau)``, and ``tau_min`` is
    open_clip's bound by default. Its gradient is already averaged over ranks.

    Raises:
        ValueError: ``tau_min`` exceeds ``tau_init``, or a value is out of range.
    """

    name: Literal["clip"]
    tau_init: TauInit = 0.07
    tau_min: TauMin = 0.01

    def anchor_losses(self, direction: Direction) -> AnchorStep:
        """Return ``softplus(z_i)``."""
        from bimodal_cl.losses.margin import compute_softplus

        return AnchorStep(compute_softplus(direction.margins.margin))
