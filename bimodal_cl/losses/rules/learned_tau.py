"""One temperature for all anchors, learned by the optimizer as open_clip learns it.

The parameter is ``logit_scale = log(1 / tau)``: a step of the optimizer changes the temperature by a factor.
"""

from __future__ import annotations

import math
from typing import Annotated

from jaxtyping import Float
from pydantic import Field

from bimodal_cl.losses.rules.base import Anchors, Learned, Tensor
from bimodal_cl.settings import Positive

TauInit = Annotated[Positive, Field(description="initial temperature")]
TauMin = Annotated[Positive, Field(description="the temperature stays above it")]


def require_below(tau_min: float, tau_init: float) -> None:
    """Refuse a lower bound above the initial temperature.

    Raises:
        ValueError: with both values.
    """
    if tau_min > tau_init:
        raise ValueError(f"tau_min={tau_min} must not exceed tau_init={tau_init}")


def learn_tau(tau_init: float, tau_min: float) -> dict[str, Learned]:
    """Return the parameter ``logit_scale``, held to the temperatures above ``tau_min``."""
    return {"logit_scale": Learned(-math.log(tau_init), largest=-math.log(tau_min))}


def compute_learned_tau(anchors: Anchors) -> Float[Tensor, ""]:
    """Return the temperature of all anchors."""
    return (-anchors.learned["logit_scale"]).exp()
