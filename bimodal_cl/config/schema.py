"""Every setting of a training run: one frozen schema. It imports no torch, so that ``--help`` is fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import Field, model_validator

from bimodal_cl.config.data import Data
from bimodal_cl.config.model import Model
from bimodal_cl.losses.module.registry import LOSS_SETTINGS
from bimodal_cl.losses.rules.base import LossSettings
from bimodal_cl.settings import BelowOne, Count, CountOrZero, NotNegative, NotTruth, PathText, Positive, Section

if TYPE_CHECKING:
    Loss = LossSettings
else:  # which keys the section has depends on its name
    Loss = Annotated[Union[tuple(LOSS_SETTINGS.values())], Field(discriminator="name")]  # noqa: UP007 (help reads it)


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


class Train(Section):
    """Length, batch, precision."""

    num_epochs: Count | None = Field(None, description="length of the training; or give num_steps")
    num_steps: Count | None = Field(None, description="length of the training; or give num_epochs")
    global_batch_size: Count = Field(256, description="pairs of a step, over all ranks and micro-batches together")
    accumulate_features: Count = Field(
        1, description="parts of a process's batch that are encoded one after another, to save memory, under one loss"
    )
    precision: Literal["float32", "bf16", "fp16"] = Field("float32", description="of the towers; losses use float32")
    device: Literal["auto", "cpu"] = Field("auto", description="auto: the accelerator if there is one")
    log_every: Count = Field(10, description="steps between lines of metrics.jsonl")
    evaluate_every: Count | None = Field(None, description="steps between evaluations; null: after every epoch")

    @model_validator(mode="after")
    def _one_length(self) -> Train:
        if (self.num_epochs is None) == (self.num_steps is None):
            raise ValueError("give one of num_epochs and num_steps")
        return self


class Checkpoint(Section):
    """When checkpoints are written and which are kept."""

    every: Count | None = Field(None, description="steps between checkpoints; null: after every epoch")
    keep_last: Count = Field(2, description="how many of the newest are kept")
    best: str | None = Field(
        None, description="also keep the best by this score, e.g. retrieval/image_retrieval_recall@5 (larger is better)"
    )


class Config(Section):
    """A training run."""

    output: PathText = Field(description="the run's folder")
    seed: Annotated[int, Field(ge=0, lt=2**63), NotTruth] = Field(
        0, description="random seed of initialization, sample order, augmentation and dropout"
    )
    data: Data
    model: Model
    loss: Loss
    optim: Optim = Optim()
    train: Train
    checkpoint: Checkpoint = Checkpoint()

    @model_validator(mode="after")
    def _scores_exist(self) -> Config:
        if self.checkpoint.best is not None and self.data.val is None and self.data.zero_shot is None:
            raise ValueError(f"checkpoint.best={self.checkpoint.best} needs data.val or data.zero_shot to be scored on")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return plain values as ``config.yaml`` holds them, without unset keys whose default is None."""
        return self.model_dump(mode="json")
