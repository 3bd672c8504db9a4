"""What a reference loss remembers between steps, and what one of its steps returns."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np


@dataclass
class AnchorMemory:
    """Per-anchor values by id; an id that was never visited has no entry.

    Attributes:
        u: moving average of the odds ``g`` (linear, as the papers write it).
        tau: individual temperature.
        tau_grad: moving average of the temperature's gradient.
        tau_grad_square: Adam's moving average of its square.
        tau_updates: how often Adam has moved it.
        alignment: moving average of ``s_ii``.
    """

    u: dict[int, float] = field(default_factory=dict)
    tau: dict[int, float] = field(default_factory=dict)
    tau_grad: dict[int, float] = field(default_factory=dict)
    tau_grad_square: dict[int, float] = field(default_factory=dict)
    tau_updates: dict[int, int] = field(default_factory=dict)
    alignment: dict[int, float] = field(default_factory=dict)


@dataclass
class ReferenceState:
    """Memory of both modalities, and the learned parameters: log of ``1 / tau``, and ``siglip``'s bias."""

    image: AnchorMemory = field(default_factory=AnchorMemory)
    text: AnchorMemory = field(default_factory=AnchorMemory)
    logit_scale: float | None = None
    logit_bias: float | None = None

    def copy(self) -> ReferenceState:
        """A deep copy: a step never writes into the state it was given."""
        return copy.deepcopy(self)


@dataclass
class DirectionTerms:
    """One direction's result, anchors in batch order.

    Attributes:
        losses: ``L_i`` of each anchor, 0 where it has no negatives, ``[anchors]``.
        coefficients: ``c_i = dL_i/dz_i``, 0 where it has no negatives, ``[anchors]``.
        taus: temperature used for each anchor, ``[anchors]``.
    """

    losses: list[float]
    coefficients: list[float]
    taus: list[float]


@dataclass
class ReferenceStep:
    """One step's loss, its gradients, the state after it and the temperatures that it used."""

    loss: float
    image_grad: np.ndarray
    text_grad: np.ndarray
    state: ReferenceState
    image_taus: list[float]
    text_taus: list[float]
    alignment: float
    logit_scale_grad: float | None = None
    logit_bias_grad: float | None = None
