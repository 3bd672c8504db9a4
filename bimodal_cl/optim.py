"""Parameter groups and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


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
    """Build AdamW with weight decay on matrices only.

    Parameters of fewer than two dimensions (norms, biases, scales) and the learned temperatures are not decayed, as
    in open_clip.

    Args:
        model: its trainable parameters are optimized.
        temperatures: the loss's learned parameters.
        learning_rate: peak learning rate; the schedule sets the one in force.
        weight_decay: decoupled weight decay.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the denominator.
        temperature_learning_rate: where given, ``temperatures`` are the last parameter group and start with it.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trainable if parameter.ndim >= 2]
    free = [parameter for parameter in trainable if parameter.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    if temperature_learning_rate is None:
        free += temperatures
    else:
        groups.append({"params": list(temperatures), "weight_decay": 0.0, "lr": temperature_learning_rate})
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(beta1, beta2), eps=eps, fused=True)


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
