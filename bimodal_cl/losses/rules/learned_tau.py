"""One temperature for all anchors, learned by the optimizer as open_clip learns it.

The parameter is ``logit_scale = log(1 / tau)``: a step of the optimizer changes the temperature by a factor.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from jaxtyping import Float
from pydantic import Field, model_validator

from bimodal_cl.losses.rules.base import Anchors, Learned, LossSettings, Tensor
from bimodal_cl.settings import Positive

TauInit = Annotated[Positive, Field(description="initial temperature")]
TauMin = Annotated[Positive, Field(description="lower bound of the temperature")]


class LearnedTau(LossSettings):
    """Base of the losses with one learned temperature; a loss declares ``tau_init`` and ``tau_min``.

    Raises:
        ValueError: ``tau_min`` exceeds ``tau_init``.
    """

    if TYPE_CHECKING:  # declared by each loss, with its own defaults, among its fields
        tau_init: float
        tau_min: float

    @model_validator(mode="after")
    def _check_bound(self) -> LearnedTau:
        if self.tau_min > self.tau_init:
            raise ValueError(f"tau_min={self.tau_min} must not exceed tau_init={self.tau_init}")
        return self

    def learned(self) -> dict[str, Learned]:
        """Return ``logit_scale``, bounded so that the temperature is at least ``tau_min``."""
        return {"logit_scale": Learned(-math.log(self.tau_init), largest=-math.log(self.tau_min))}

    def temperature(self, anchors: Anchors) -> Float[Tensor, "anchors 1"]:
        """Return the one learned temperature for all."""
        return compute_learned_tau(anchors).expand_as(anchors.alignment)


def compute_learned_tau(anchors: Anchors) -> Float[Tensor, ""]:
    """Return the temperature of all anchors as a scalar."""
    return (-anchors.learned["logit_scale"]).exp()
