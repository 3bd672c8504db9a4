"""The section ``optim``: the optimizer, its learning rates and their schedules."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bimodal_cl.settings import BelowOne, CountOrZero, NotNegative, Positive, Section


class Optim(Section):
    """AdamW, warm-up and decay of the learning rate, gradient clipping."""

    learning_rate: Positive = Field(1e-3, description="peak learning rate")
    min_learning_rate: NotNegative = Field(0.0, description="learning rate at the end of the cosine")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="learning rate after the warm-up")
    temperature_learning_rate: Positive | None = Field(
        None,
        description="constant rate of the loss's learned temperature (FastCLIP-v3: 2e-4); null: that of the weights",
    )
    warmup_steps: CountOrZero = Field(100, description="steps of linear warm-up")
    weight_decay: NotNegative = Field(
        0.1, description="decay of matrices; norms, biases and temperatures are not decayed"
    )
    beta1: BelowOne = Field(0.9, description="AdamW")
    beta2: BelowOne = Field(0.98, description="AdamW")
    eps: Positive = Field(1e-6, description="AdamW")
    max_grad_norm: Positive | None = Field(1.0, description="clip the gradient to this norm; null: do not")
