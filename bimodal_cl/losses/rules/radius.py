"""The KL radius of the robust losses: how far an anchor's weights on its negatives may move from uniform ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from jaxtyping import Float
from pydantic import Field, model_validator

from bimodal_cl.losses.rules.base import Tensor
from bimodal_cl.losses.rules.moving_average import MovingAverage
from bimodal_cl.settings import Fraction, NotNegative

Rho = Annotated[NotNegative, Field(description="KL radius; above log(number of negatives), tau falls to tau_min")]
RhoFraction = Annotated[
    Fraction | None, Field(description="rho as a share of log(number of negatives), instead of rho")
]


class KLRadius(MovingAverage):
    """Base of the losses with a KL radius for each anchor; a loss declares ``rho`` and ``rho_fraction``.

    ``n`` negatives can show at most ``log n``: with ``rho`` above it the derivative of the loss in the temperature
    stays positive and every temperature falls to ``tau_min``. With ``rho_fraction`` the radius is
    ``rho_fraction * log n_i`` instead, so that a recipe carries over to another batch size.

    Raises:
        ValueError: both are given.
    """

    if TYPE_CHECKING:  # declared by each loss, with its own defaults, among its fields
        rho: float
        rho_fraction: float | None

    @model_validator(mode="after")
    def _check_radius(self) -> KLRadius:
        if self.rho_fraction is not None and self.rho != type(self).model_fields["rho"].default:
            raise ValueError(f"rho={self.rho} and rho_fraction={self.rho_fraction}: give one of them")
        return self

    def concerns_of_batch(self, num_negatives: int) -> Iterator[str]:
        """Say that so many negatives cannot show the radius."""
        largest = math.log(max(1, num_negatives))
        if self.rho_fraction is None and self.rho > largest:
            yield (
                f"rho={self.rho} exceeds {largest:.3g} = log of the {max(1, num_negatives)} negatives of a batch: "
                "every temperature will fall to tau_min; lower rho or set rho_fraction"
            )

    def radius_of(self, num_negatives: Float[Tensor, "anchors 1"]) -> Float[Tensor, "anchors 1"]:
        """Return the radius of each anchor from its number of negatives."""
        if self.rho_fraction is not None:
            return self.rho_fraction * num_negatives.clamp(min=1).log()
        return num_negatives.new_full(num_negatives.shape, self.rho)
