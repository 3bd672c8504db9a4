"""The sections ``train``, ``ema``, ``checkpoint``, ``tracking``: a run's length and batch, what is saved and shown."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from bimodal_cl.errors import did_you_mean
from bimodal_cl.settings import BelowOne, Count, NotTruth, Positive, Section


class Train(Section):
    """Length, batch, precision."""

    num_epochs: Count | None = Field(None, description="length of the training; or give num_steps")
    num_steps: Count | None = Field(None, description="length of the training; or give num_epochs")
    global_batch_size: Count = Field(256, description="pairs of a step, over all ranks and micro-batches together")
    accumulate_features: Count = Field(
        1, description="parts of a process's batch that are encoded one after another, to save memory, under one loss"
    )
    precision: Literal["float32", "bf16", "fp16"] = Field("float32", description="of the towers; losses use float32")
    compile: bool = Field(False, description="torch.compile of both towers, in the first step")
    grad_checkpointing: bool = Field(
        False, description="compute the towers' blocks again in the backward pass instead of keeping their activations"
    )
    patch_dropout: BelowOne | None = Field(
        None, description="share of patches that a ViT leaves out in training (FLIP); null: as the model's config says"
    )
    tf32: bool = Field(False, description="the towers' float32 matrix products in TF32, on NVIDIA GPUs")
    device: Literal["auto", "cpu"] = Field("auto", description="auto: the accelerator if there is one")
    non_finite: Literal["stop", "skip"] = Field(
        "stop", description="features or gradients that are not finite: stop the run, or leave that step out"
    )
    max_non_finite: Count = Field(
        10, description="with non_finite=skip, and with fp16: stop after so many such steps in a row"
    )
    timeout_seconds: Positive = Field(1800, description="how long a rank waits for the others before it ends")
    log_every: Count = Field(10, description="steps between lines of metrics.jsonl")
    evaluate_every: Count | None = Field(None, description="steps between evaluations; null: after every epoch")

    @model_validator(mode="after")
    def _one_length(self) -> Train:
        if (self.num_epochs is None) == (self.num_steps is None):
            raise ValueError("give one of num_epochs and num_steps")
        return self


class Ema(Section):
    """An exponential moving average of the weights, kept beside them; see :mod:`bimodal_cl.training.weight_average`."""

    decay: Annotated[float, Field(gt=0, lt=1), NotTruth] | None = Field(
        None, description="share of the old average in the new one at each step, e.g. 0.999; null: no average"
    )
    decay_warmup: bool = Field(True, description="begin with the decay (1 + step) / (10 + step) where that is smaller")
    evaluate: bool = Field(True, description="score the averaged weights as well, under names that begin with ema/")


class Checkpoint(Section):
    """When checkpoints are written and which are kept."""

    every: Count | None = Field(None, description="steps between checkpoints; null: after every epoch")
    keep_last: Count = Field(2, description="how many of the newest are kept")
    on_write_error: Literal["stop", "continue"] = Field(
        "stop", description="a checkpoint that cannot be written, such as on a full disk: stop the run, or go on"
    )
    best: str | None = Field(
        None, description="also keep the best by this score, e.g. retrieval/image_retrieval_recall@5 (larger is better)"
    )


TrackerName = Literal["tensorboard", "wandb", "trackio", "mlflow"]


class Tracking(Section):
    """Where the logged values go besides the run's folder."""

    trackers: tuple[TrackerName, ...] = Field(
        (), description="any of tensorboard, wandb, trackio, mlflow; each needs its package"
    )
    project: str = Field(
        "bimodal_cl", min_length=1, description="project (MLflow: experiment) that collects the runs there"
    )
    name: str | None = Field(None, min_length=1, description="the run's name there; null: that of the run's folder")

    @field_validator("trackers", mode="before")
    @classmethod
    def _known_names(cls, value: Any) -> Any:
        names = value.replace(",", " ").split() if isinstance(value, str) else value
        known = get_args(TrackerName)
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"should be a list of {', '.join(known)}")
        for name in names:
            if name not in known:
                raise ValueError(f"unknown tracker '{name}'{did_you_mean(name, known)}")
            if names.count(name) > 1:
                raise ValueError(f"tracker '{name}' is given twice")
        return names
