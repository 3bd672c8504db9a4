"""How an individual temperature moves: momentum or Adam, with the step sizes of iSogCLR's schedules."""

from __future__ import annotations

import math
from typing import Any

from tests.reference.state import AnchorMemory

GRADIENT_CLIP = 5.0


def compute_eta(hyper: dict[str, Any], progress: float) -> float:
    """``eta``, a quarter cosine from it to ``eta_min``, or an exponential that leaves ``eta_decay`` at the end.

    In a warm-up it is the share of that which is done.
    """
    warmup = hyper["eta_warmup"]
    done = min(1.0, progress / warmup) if warmup > 0.0 else 1.0
    return done * _scheduled_eta(hyper, progress)


def _scheduled_eta(hyper: dict[str, Any], progress: float) -> float:
    if hyper["eta_schedule"] == "constant":
        return hyper["eta"]
    span = hyper["eta"] - hyper["eta_min"]
    if hyper["eta_schedule"] == "cosine":
        return hyper["eta_min"] + span * math.cos(math.pi * progress / 2.0)
    return hyper["eta_min"] + span * math.exp(progress * math.log(hyper["eta_decay"]))


def step_tau(memory: AnchorMemory, anchor_id: int, gradient: float, hyper: dict[str, Any], eta: float) -> None:
    """Move one anchor's temperature by its clipped gradient and hold it to its bounds."""
    gradient = min(max(gradient, -GRADIENT_CLIP), GRADIENT_CLIP)
    old = memory.tau_grad.get(anchor_id, 0.0)
    if hyper["tau_optimizer"] == "momentum":
        memory.tau_grad[anchor_id] = direction = (1.0 - hyper["beta"]) * old + hyper["beta"] * gradient
    else:
        beta1, beta2 = hyper["adam_beta1"], hyper["adam_beta2"]
        times = memory.tau_updates.get(anchor_id, 0) + 1
        square = beta2 * memory.tau_grad_square.get(anchor_id, 0.0) + (1.0 - beta2) * gradient**2
        mean = beta1 * old + (1.0 - beta1) * gradient
        memory.tau_updates[anchor_id] = times
        memory.tau_grad[anchor_id], memory.tau_grad_square[anchor_id] = mean, square
        direction = mean / (1.0 - beta1**times) / (math.sqrt(square / (1.0 - beta2**times)) + hyper["adam_eps"])
    tau = memory.tau.get(anchor_id, hyper["tau_init"]) - eta * direction
    memory.tau[anchor_id] = min(max(tau, hyper["tau_min"]), hyper["tau_max"])
