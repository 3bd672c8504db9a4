"""One temperature for all anchors, learned by the optimizer as open_clip learns it.

The parameter is ``logit_scale = log(1 / tau)``: a step of the optimizer changes the temperature by a factor.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bimodal_cl.distributed import replicated_parameter
from bimodal_cl.losses.contrastive import ContrastiveLoss, require_between


def learn_tau(loss: ContrastiveLoss, tau_init: float, tau_min: float) -> None:
    """Give a loss the parameter ``logit_scale``.

    Args:
        loss: the module that gets it.
        tau_init: initial temperature.
        tau_min: the temperature does not fall below it, > 0.

    Raises:
        ValueError: ``tau_min`` is not positive or exceeds ``tau_init``.
    """
    require_between("tau_min", tau_min, 0, math.inf, low_open=True)
    require_between("tau_init", tau_init, 0, math.inf, low_open=True)
    if tau_min > tau_init:
        raise ValueError(f"tau_min={tau_min} must not exceed tau_init={tau_init}")
    loss.learn("logit_scale", -math.log(tau_init))


def compute_learned_tau(logit_scale: Float[Tensor, ""], tau_min: float) -> Float[Tensor, ""]:
    """Return the temperature, after holding the parameter to its bound in place.

    Its gradient is averaged over ranks here, so the parameter stays equal on all of them in any training loop.
    """
    with torch.no_grad():
        logit_scale.clamp_(max=-math.log(tau_min))
    return torch.exp(-replicated_parameter(logit_scale))
