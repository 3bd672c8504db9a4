"""How an anchor's own temperature follows its gradient: momentum or Adam, with a constant or falling step size.

A rule reads and returns columns of the anchors' table; the caller takes the step ``tau - eta * direction``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bimodal_cl.losses.contrastive import refuse_unused, require_between, require_choice

Columns = Mapping[str, Float[Tensor, "ids 1"]]


class Momentum:
    """The moving average of the gradient is the direction (iSogCLR: Qiu et al., ICML 2023).

    Args:
        beta: weight of the **new** gradient, in (0, 1].
    """

    columns: ClassVar[dict[str, float]] = {"tau_grad": 0.0}

    def __init__(self, beta: float) -> None:
        require_between("beta", beta, 0, 1, low_open=True)
        self.beta = beta

    def __call__(
        self, gradient: Float[Tensor, "ids 1"], state: Columns
    ) -> tuple[Float[Tensor, "ids 1"], dict[str, Float[Tensor, "ids 1"]]]:
        """Return the direction and the columns' new values."""
        tau_grad = (1 - self.beta) * state["tau_grad"] + self.beta * gradient
        return tau_grad, {"tau_grad": tau_grad}


class Adam:
    """Adam (Kingma and Ba, ICLR 2015) for each anchor by itself, as FastCLIP-v2 does (arXiv 2407.01445).

        m <- beta1 m + (1 - beta1) G              v <- beta2 v + (1 - beta2) G^2           t <- t + 1
        direction = ( m / (1 - beta1^t) ) / ( sqrt(v / (1 - beta2^t)) + eps )

    ``t`` counts this anchor's own updates. (The authors' code counts epochs for all anchors, and starts the averages
    from the first epoch's gradient without correcting for that.) Here ``beta1`` and ``beta2`` weigh the **old** value,
    as everybody writes Adam; they are not ``beta`` of :class:`Momentum`.

    Columns: ``tau_grad`` is ``m``, ``tau_grad_square`` is ``v``, ``tau_updates`` is ``t``.

    Args:
        beta1: weight of the old mean gradient, in [0, 1).
        beta2: weight of the old mean square, in [0, 1).
        eps: added to the denominator, > 0.
    """

    columns: ClassVar[dict[str, float]] = {"tau_grad": 0.0, "tau_grad_square": 0.0, "tau_updates": 0.0}

    def __init__(self, beta1: float, beta2: float, eps: float) -> None:
        for name, beta in (("adam_beta1", beta1), ("adam_beta2", beta2)):
            require_between(name, beta, 0, 1)
            if beta == 1:
                raise ValueError(f"{name}=1 would never take up a gradient; it must be in [0, 1)")
        require_between("adam_eps", eps, 0, math.inf, low_open=True)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps

    def __call__(
        self, gradient: Float[Tensor, "ids 1"], state: Columns
    ) -> tuple[Float[Tensor, "ids 1"], dict[str, Float[Tensor, "ids 1"]]]:
        """Return the direction and the columns' new values."""
        mean = self.beta1 * state["tau_grad"] + (1 - self.beta1) * gradient
        square = self.beta2 * state["tau_grad_square"] + (1 - self.beta2) * gradient.square()
        updates = state["tau_updates"] + 1
        scale = (square / _missing_weight(self.beta2, updates)).sqrt() + self.eps
        direction = mean / _missing_weight(self.beta1, updates) / scale
        return direction, {"tau_grad": mean, "tau_grad_square": square, "tau_updates": updates}


def build_descent(
    tau_optimizer: Literal["momentum", "adam"], beta: float, adam_beta1: float, adam_beta2: float, adam_eps: float
) -> Momentum | Adam:
    """Choose the rule and refuse what belongs to the other one.

    Raises:
        ValueError: an unknown rule, a value out of range, or one that the rule does not read and that is not at its
            default (0.9; 0.9, 0.999, 1e-8).
    """
    require_choice("tau_optimizer", tau_optimizer, ("momentum", "adam"))
    if tau_optimizer == "adam":
        refuse_unused("tau_optimizer='adam' (whose weights are adam_beta1, adam_beta2)", beta=(beta, 0.9))
        return Adam(adam_beta1, adam_beta2, adam_eps)
    refuse_unused(
        "tau_optimizer='momentum'",
        adam_beta1=(adam_beta1, 0.9),
        adam_beta2=(adam_beta2, 0.999),
        adam_eps=(adam_eps, 1e-8),
    )
    return Momentum(beta)


def _missing_weight(beta: float, updates: Tensor) -> Tensor:
    """``1 - beta^t`` to full precision: in float32 the difference itself would lose five digits at 0.999."""
    return torch.ones_like(updates) if beta == 0 else -torch.expm1(updates * math.log(beta))


class StepSize:
    """``eta`` as a function of the share ``p`` of the training that is done.

        constant:   eta
        cosine:     eta_min + (eta - eta_min) * cos(pi/2 * p)
        exp:        eta_min + (eta - eta_min) * eta_decay ^ p

    These are the schedules of iSogCLR's code, which moves by epochs (here: by steps) and gives the factor of ``exp`` by
    the epoch: 0.8, over 30 epochs 0.8^30 = 0.00124, which is the default of ``eta_decay``.

    Args:
        eta: step size at first, > 0.
        schedule: ``"constant"``, ``"cosine"`` or ``"exp"``.
        eta_min: step size that a schedule tends to, from 0 to ``eta``.
        eta_decay: ``exp``: what is left of ``eta - eta_min`` at the end, in (0, 1].

    Raises:
        ValueError: a value out of range, or one that the schedule does not read and that is not at its default.
    """

    def __init__(
        self, eta: float, schedule: Literal["constant", "cosine", "exp"], eta_min: float, eta_decay: float
    ) -> None:
        require_between("eta", eta, 0, math.inf, low_open=True)
        require_choice("eta_schedule", schedule, ("constant", "cosine", "exp"))
        if schedule == "constant":
            refuse_unused("eta_schedule='constant'", eta_min=(eta_min, 1e-4), eta_decay=(eta_decay, 0.00124))
        else:
            require_between("eta_min", eta_min, 0, math.inf)
            if eta_min > eta:
                raise ValueError(f"eta_min={eta_min} must not exceed eta={eta}")
        if schedule == "cosine":
            refuse_unused("eta_schedule='cosine'", eta_decay=(eta_decay, 0.00124))
        require_between("eta_decay", eta_decay, 0, 1, low_open=True)
        idle = f"eta_min={eta_min} is eta" if eta_min == eta else "eta_decay=1"
        if schedule != "constant" and (eta_min == eta or (schedule == "exp" and eta_decay == 1)):
            warnings.warn(
                f"{idle}: eta_schedule={schedule!r} has no effect; lower it, or take 'constant'", stacklevel=4
            )
        self.eta, self.schedule, self.eta_min, self.eta_decay = eta, schedule, eta_min, eta_decay

    def __call__(self, progress: Callable[[str], float]) -> float:
        """Return the step size in force; ``progress`` is asked only where there is a schedule."""
        if self.schedule == "constant":
            return self.eta
        done = progress("eta")
        left = math.cos(math.pi / 2 * done) if self.schedule == "cosine" else self.eta_decay**done
        return self.eta_min + (self.eta - self.eta_min) * left
