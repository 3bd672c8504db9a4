"""Compute learning rates as functions of the step: warm-up, then cosine, constant, or constant with a cooldown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from bimodal_cl.optim.groups import DECAYED, NOT_DECAYED, TEMPERATURE


def compute_learning_rates(
    step: int,
    num_steps: int,
    *,
    learning_rate: float,
    temperature_learning_rate: float | None = None,
    peaks: Mapping[str, float] | None = None,
    **schedule: Any,
) -> dict[str, float]:
    """Return the learning rate of every parameter group in a step, by the group's name.

    Args:
        step: 0 for the first step.
        num_steps: steps of the whole training.
        learning_rate: peak learning rate of the weights; their rate is :func:`compute_learning_rate`.
        temperature_learning_rate: constant rate of the learned temperatures; None: they are in the group of parameters
            without decay and follow the weights.
        peaks: peak learning rates of further groups by name; they are scaled as that of the weights.
        schedule: further arguments of :func:`compute_learning_rate`.
    """
    rate = compute_learning_rate(step, num_steps, learning_rate=learning_rate, **schedule)
    rates = {DECAYED: rate, NOT_DECAYED: rate}
    if temperature_learning_rate is not None:
        rates[TEMPERATURE] = temperature_learning_rate
    return {**rates, **{name: rate * (peak / learning_rate) for name, peak in (peaks or {}).items()}}


def read_peaks(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return the peak learning rates of a new optimizer's further groups, for :func:`compute_learning_rates`."""
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    return {name: rate for name, rate in rates.items() if name not in (DECAYED, NOT_DECAYED, TEMPERATURE)}


def rates_by_part(rates: Mapping[str, float]) -> dict[str, float]:
    """Return the learning rate of each part that has its own, from those of the groups; of layers, the highest."""
    found: dict[str, float] = {}
    for name, rate in rates.items():
        part, slash, _ = name.partition("/")
        if slash:
            found[part] = max(rate, found.get(part, rate))
    return found


def compute_learning_rate(
    step: int,
    num_steps: int,
    *,
    learning_rate: float,
    min_learning_rate: float = 0.0,
    warmup_steps: int = 0,
    schedule: str = "cosine",
    cooldown_steps: int | None = None,
    cooldown_power: float = 1.0,
) -> float:
    """Return the learning rate of a step: linear warm-up, then one of three schedules.

    With ``min`` for ``min_learning_rate``, ``s`` for the step and ``S`` for ``num_steps``:

        cosine:             min + (learning_rate - min) * (1 + cos(pi * (s - warmup) / (S - warmup))) / 2
        constant:           learning_rate
        constant_cooldown:  learning_rate, and in the last ``cooldown_steps`` steps
                            min + (learning_rate - min) * ((S - s) / cooldown_steps) ^ cooldown_power

    Args:
        step: 0 for the first step.
        num_steps: steps of the whole training.
        learning_rate: reached at ``step == warmup_steps - 1``.
        min_learning_rate: what the cosine and the cooldown tend to; a step after the last would have it.
        warmup_steps: length of the warm-up.
        schedule: ``"cosine"``, ``"constant"`` or ``"constant_cooldown"``.
        cooldown_steps: length of the cooldown.
        cooldown_power: of the cooldown; 1 is linear.
    """
    if step < warmup_steps:
        return learning_rate * (step + 1) / warmup_steps
    if schedule == "constant":
        return learning_rate
    if schedule == "constant_cooldown":
        assert cooldown_steps is not None
        left = min(1.0, max(0, num_steps - step) / cooldown_steps)
        return min_learning_rate + (learning_rate - min_learning_rate) * left**cooldown_power
    done = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return min_learning_rate + (learning_rate - min_learning_rate) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
