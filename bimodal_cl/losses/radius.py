"""The KL radius of the robust losses: how far an anchor's weights on its negatives may move from equal ones."""

from __future__ import annotations

import math
import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from bimodal_cl.losses.contrastive import require_between


class KLRadius:
    """``rho`` for each anchor, either one number or a fraction of what its negatives can show.

    ``n`` negatives can show at most ``log n``: with ``rho`` above it the derivative of the loss in the temperature
    stays positive and every temperature falls to ``tau_min``. That is warned of once.

    Args:
        rho: the radius, >= 0.
        default: its default value; anything else besides a ``rho_fraction`` is refused.
        rho_fraction: the radius is ``rho_fraction * log n_i`` instead, in [0, 1], so that a recipe carries over to
            another batch size; None takes ``rho``.

    Raises:
        ValueError: a value out of range, or both given.
    """

    def __init__(self, rho: float, default: float, rho_fraction: float | None) -> None:
        require_between("rho", rho, 0, math.inf)
        if rho_fraction is not None:
            require_between("rho_fraction", rho_fraction, 0, 1)
            if rho != default:
                raise ValueError(f"rho={rho} and rho_fraction={rho_fraction}: give one of them")
        self.rho, self.rho_fraction = rho, rho_fraction
        self._was_compared = False

    def __call__(self, num_negatives: Float[Tensor, "anchors 1"]) -> Float[Tensor, "anchors 1"]:
        """Return the radius of each anchor from its number of negatives."""
        log_n = num_negatives.clamp(min=1).log()
        if self.rho_fraction is not None:
            return self.rho_fraction * log_n
        if not self._was_compared:
            self._was_compared = True
            largest = log_n.max().item()
            if self.rho > largest:
                warnings.warn(
                    f"rho={self.rho} exceeds {largest:.3g} = log of the {math.exp(largest):.0f} negatives of a batch: "
                    "every temperature will fall to tau_min; lower rho or set rho_fraction",
                    stacklevel=4,
                )
        return torch.full_like(log_n, self.rho)
