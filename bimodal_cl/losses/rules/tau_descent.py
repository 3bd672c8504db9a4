"""Update an anchor's own temperature from its gradient: momentum or Adam, with a constant or falling step size.

A rule reads and returns columns of the anchors' table; the caller takes the step ``tau - eta * direction``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar, Literal

from jaxtyping import Float

from bimodal_cl.losses.rules.base import Columns, Tensor

NewColumns = dict[str, Float[Tensor, "ids 1"]]


@dataclasses.dataclass(frozen=True)
class Momentum:
    """The moving average of the gradient is the direction (iSogCLR: Qiu et al., ICML 2023).

    Attributes:
        beta: weight of the **new** gradient, in (0, 1].
    """

    columns: ClassVar[dict[str, float]] = {"tau_grad": 0.0}
    beta: float

    def __call__(self, gradient: Float[Tensor, "ids 1"], state: Columns) -> tuple[Float[Tensor, "ids 1"], NewColumns]:
        """Return the direction and the columns' new values."""
        tau_grad = (1 - self.beta) * state["tau_grad"] + self.beta * gradient
        return tau_grad, {"tau_grad": tau_grad}


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba, ICLR 2015) for each anchor by itself, as FastCLIP-v2 does (arXiv 2407.01445).

        m <- beta1 m + (1 - beta1) G              v <- beta2 v + (1 - beta2) G^2           t <- t + 1
        direction = ( m / (1 - beta1^t) ) / ( sqrt(v / (1 - beta2^t)) + eps )

    ``t`` counts this anchor's own updates. (The authors' code counts epochs for all anchors, and starts the averages
    from the first epoch's gradient without correcting for that.) Here ``beta1`` and ``beta2`` weigh the **old** value,
    as usual for Adam; they are not ``beta`` of :class:`Momentum`.

    Columns: ``tau_grad`` is ``m``, ``tau_grad_square`` is ``v``, ``tau_updates`` is ``t``.

    Attributes:
        beta1: weight of the old mean gradient, in [0, 1).
        beta2: weight of the old mean square, in [0, 1).
        eps: added to the denominator, > 0.
    """

    columns: ClassVar[dict[str, float]] = {"tau_grad": 0.0, "tau_grad_square": 0.0, "tau_updates": 0.0}
    beta1: float
    beta2: float
    eps: float

    def __call__(self, gradient: Float[Tensor, "ids 1"], state: Columns) -> tuple[Float[Tensor, "ids 1"], NewColumns]:
        """Return the direction and the columns' new values."""
        mean = self.beta1 * state["tau_grad"] + (1 - self.beta1) * gradient
        square = self.beta2 * state["tau_grad_square"] + (1 - self.beta2) * gradient.square()
        updates = state["tau_updates"] + 1
        scale = (square / _missing_weight(self.beta2, updates)).sqrt() + self.eps
        direction = mean / _missing_weight(self.beta1, updates) / scale
        return direction, {"tau_grad": mean, "tau_grad_square": square, "tau_updates": updates}


def _missing_weight(beta: float, updates: Float[Tensor, "ids 1"]) -> Float[Tensor, "ids 1"]:
    """``1 - beta^t`` to full precision: in float32 the difference itself would lose five digits at 0.999."""
    return updates.new_ones(updates.shape) if beta == 0 else -(updates * math.log(beta)).expm1()


@dataclasses.dataclass(frozen=True)
class StepSize:
    """``eta`` as a function of the share ``p`` of the training that is done.

        constant:   eta
        cosine:     eta_min + (eta - eta_min) * cos(pi/2 * p)
        exp:        eta_min + (eta - eta_min) * eta_decay ^ p

    These are the schedules of iSogCLR's code, which moves by epochs (here: by steps) and gives the factor of ``exp`` by
    the epoch: 0.8, over 30 epochs 0.8^30 = 0.00124, which is the default of ``eta_decay``.

    With ``warmup = w`` the step size is multiplied by ``p / w`` while ``p < w``: no temperature moves before the moving
    averages, from which its gradient comes, mean something (this warm-up is ours).

    Attributes:
        eta: step size at first, > 0.
        schedule: ``"constant"``, ``"cosine"`` or ``"exp"``.
        eta_min: step size that a schedule tends to, from 0 to ``eta``.
        eta_decay: ``exp``: the share of ``eta - eta_min`` that is left at the end, in (0, 1].
        warmup: share of the training in which the step size rises from 0, in [0, 1).
    """

    eta: float
    schedule: Literal["constant", "cosine", "exp"]
    eta_min: float
    eta_decay: float
    warmup: float = 0.0

    @property
    def scheduled(self) -> tuple[str, ...]:
        """The fields whose value depends on the progress."""
        return () if self.schedule == "constant" and self.warmup == 0 else ("eta",)

    def concerns(self) -> Iterator[str]:
        """Say that a schedule has no effect."""
        idle = f"eta_min={self.eta_min} is eta" if self.eta_min == self.eta else "eta_decay=1"
        if self.schedule != "constant" and (
            self.eta_min == self.eta or (self.schedule == "exp" and self.eta_decay == 1)
        ):
            yield f"{idle}: eta_schedule={self.schedule!r} has no effect; lower it, or use 'constant'"

    def at(self, progress: float) -> float:
        """Return the step size when a share of the training is done."""
        eta = self.eta
        if self.schedule != "constant":
            left = math.cos(math.pi / 2 * progress) if self.schedule == "cosine" else self.eta_decay**progress
            eta = self.eta_min + (self.eta - self.eta_min) * left
        return eta * progress / self.warmup if progress < self.warmup else eta
