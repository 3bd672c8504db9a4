"""Build the optimizer with named parameter groups, and compute their learning rates as functions of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

DECAYED, NOT_DECAYED, TEMPERATURE = "decayed", "not_decayed", "temperature"  # names of the parameter groups


def build_optimizer(
    model: nn.Module,
    temperatures: Iterable[nn.Parameter] = (),
    *,
    learning_rate: float,
    weight_decay: float,
    beta1: float = 0.9,
    beta2: float = 0.98,
    eps: float = 1e-6,
    temperature_learning_rate: float | None = None,
) -> torch.optim.AdamW:
    """Build AdamW with weight decay on matrices only; each parameter group has a ``"name"``.

    Parameters of fewer than two dimensions (norms, biases, scales) and the learned temperatures are not decayed, as
    in open_clip. The groups are ``decayed``, ``not_decayed`` and, with ``temperature_learning_rate``, ``temperature``.

    Args:
        model: its trainable parameters are optimized.
        temperatures: the loss's learned parameters.
        learning_rate: peak learning rate; the schedule sets the one in force.
        weight_decay: decoupled weight decay.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the denominator.
        temperature_learning_rate: learning rate of ``temperatures``, which then are a parameter group of their own;
            None: they are ``not_decayed``, with the learning rate of the weights.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trainable if parameter.ndim >= 2]
    free = [parameter for parameter in trainable if parameter.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"name": DECAYED, "params": decayed, "weight_decay": weight_decay},
        {"name": NOT_DECAYED, "params": free, "weight_decay": 0.0},
    ]
    if temperature_learning_rate is None:
        free += temperatures
    else:
        rate = temperature_learning_rate
        groups.append({"name": TEMPERATURE, "params": list(temperatures), "weight_decay": 0.0, "lr": rate})
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(beta1, beta2), eps=eps, fused=True)


def compute_learning_rates(
    step: int,
    num_steps: int,
    *,
    learning_rate: float,
    temperature_learning_rate: float | None = None,
    **schedule: Any,
) -> dict[str, float]:
    """Return the learning rate of every parameter group in a step, by the group's name.

    Args:
        step: 0 for the first step.
        num_steps: steps of the whole training.
        learning_rate: peak learning rate of the weights; their rate is :func:`compute_learning_rate`.
        temperature_learning_rate: constant rate of the learned temperatures; None: they are in the group of parameters
            without decay and follow the weights.
        schedule: further arguments of :func:`compute_learning_rate`.
    """
    rate = compute_learning_rate(step, num_steps, learning_rate=learning_rate, **schedule)
    rates = {DECAYED: rate, NOT_DECAYED: rate}
    return rates if temperature_learning_rate is None else {**rates, TEMPERATURE: temperature_learning_rate}


def compute_learning_rate(
    step: int,
    num_steps: int,
    *,
    learning_rate: float,
    min_learning_rate: float = 0.0,
    warmup_steps: int = 0,
    schedule: str = "cosine",
) -> float:
    """Return the learning rate of a step: linear warm-up, then cosine to ``min_learning_rate``, or constant.

    Args:
        step: 0 for the first step.
        num_steps: steps of the whole training.
        learning_rate: reached at ``step == warmup_steps - 1``.
        min_learning_rate: reached at the end of the cosine.
        warmup_steps: length of the warm-up.
        schedule: ``"cosine"`` or ``"constant"``.
    """
    if step < warmup_steps:
        return learning_rate * (step + 1) / warmup_steps
    if schedule == "constant":
        return learning_rate
    done = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return min_learning_rate + (learning_rate - min_learning_rate) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
