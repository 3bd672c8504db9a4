"""The section ``optim``: what is trained, by which optimizer, at which learning rates, and their schedules."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bimodal_cl.settings import BelowOne, Count, CountOrZero, NotNegative, Positive, Section, Weight


class TowerOptim(Section):
    """What is trained of a tower, and at which learning rates."""

    lock: bool = Field(False, description="keep the tower as it is (LiT); see unlocked_groups")
    unlocked_groups: CountOrZero = Field(
        0, description="lock: the last so many groups (blocks, and a pretrained projection) are trained all the same"
    )
    learning_rate: Positive | None = Field(
        None, description="peak learning rate of the tower without its projection; null: optim.learning_rate"
    )
    layer_decay: Weight = Field(
        1.0, description="each layer's learning rate over that of the layer after it; the projection has the full one"
    )


class ImageTowerOptim(TowerOptim):
    """Of the image tower, which may have batch norms."""

    freeze_statistics: bool = Field(
        False, description="batch norms use the running statistics of the weights and keep them, while they are trained"
    )


class Optim(Section):
    """Optimizer, what it trains, warm-up and decay of the learning rate, gradient clipping."""

    name: Literal["adamw", "lamb", "lion", "muon"] = Field("adamw", description="optimizer")
    learning_rate: Positive = Field(1e-3, description="peak learning rate")
    min_learning_rate: NotNegative = Field(0.0, description="learning rate at the end of the cosine or the cooldown")
    schedule: Literal["cosine", "constant", "constant_cooldown"] = Field(
        "cosine", description="learning rate after the warm-up"
    )
    heads_learning_rate: Positive | None = Field(
        None, description="peak learning rate of both towers' projections; null: that of the weights"
    )
    temperature_learning_rate: Positive | None = Field(
        None,
        description="constant rate of the loss's learned temperature (FastCLIP-v3: 2e-4); null: that of the weights",
    )
    warmup_steps: CountOrZero = Field(100, description="steps of linear warm-up")
    cooldown_steps: Count | None = Field(None, description="constant_cooldown: steps of decay at the end of the run")
    cooldown_power: Positive = Field(1.0, description="constant_cooldown: 1 is linear")
    weight_decay: NotNegative = Field(
        0.1, description="decay of matrices; norms, biases and temperatures are not decayed"
    )
    beta1: BelowOne = Field(0.9, description="decay of the mean gradient (muon: of what is not a hidden matrix)")
    beta2: BelowOne = Field(0.98, description="decay of the mean square; lion: of the mean gradient that is kept")
    eps: Positive = Field(1e-6, description="added to the denominator; lion has none")
    momentum: BelowOne = Field(0.95, description="muon: decay of the mean gradient of hidden matrices")
    max_grad_norm: Positive | None = Field(1.0, description="clip the gradient to this norm; null: do not")
    image: ImageTowerOptim = ImageTowerOptim()
    text: TowerOptim = TowerOptim()
