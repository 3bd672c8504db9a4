"""The KL radius of the robust losses: how far an anchor's weights on its negatives may move from equal ones."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Annotated

from jaxtyping import Float
from pydantic import Field

from bimodal_cl.losses.rules.base import Tensor
from bimodal_cl.settings import Fraction, NotNegative, Section

Rho = Annotated[NotNegative, Field(description="KL radius; above log of the negatives, tau falls to tau_min")]
RhoFraction = Annotated[Fraction | None, Field(description="rho as a share of log of the negatives, instead of rho")]


@dataclasses.dataclass(frozen=True)
class KLRadius:
    """``rho`` for each anchor, either one number or a fraction of what its negatives can show.

    ``n`` negatives can show at most ``log n``: with ``rho`` above it the derivative of the loss in the temperature
    stays positive and every temperature falls to ``tau_min``.

    Attributes:
        rho: the radius, >= 0.
        rho_fraction: the radius is ``rho_fraction * log n_i`` instead, in [0, 1], so that a recipe carries over to
            another batch size; None takes ``rho``.
    """

    rho: float
    rho_fraction: float | None

    def concerns_of_batch(self, num_negatives: int) -> Iterator[str]:
        """Say that so many negatives cannot show the radius."""
        largest = math.log(max(1, num_negatives))
        if self.rho_fraction is None and self.rho > largest:
            yield (
                f"rho={self.rho} exceeds {largest:.3g} = log of the {max(1, num_negatives)} negatives of a batch: "
                "every temperature will fall to tau_min; lower rho or set rho_fraction"
            )

    def of(self, num_negatives: Float[Tensor, "anchors 1"]) -> Float[Tensor, "anchors 1"]:
        """Return the radius of each anchor from its number of negatives."""
        if self.rho_fraction is not None:
            return self.rho_fraction * num_negatives.clamp(min=1).log()
        return num_negatives.new_full(num_negatives.shape, self.rho)


def require_one_radius(settings: Section, rho: float, rho_fraction: float | None) -> None:
    """Refuse a ``rho`` that was set as well as a ``rho_fraction``.

    Raises:
        ValueError: with both values.
    """
    if rho_fraction is not None and rho != type(settings).model_fields["rho"].default:
        raise ValueError(f"rho={rho} and rho_fraction={rho_fraction}: give one of them")
