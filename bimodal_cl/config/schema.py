"""Every setting of a training run: one frozen schema. It imports no torch, so that ``--help`` is fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Field, model_validator

from bimodal_cl.config.data import Data
from bimodal_cl.config.model import Model
from bimodal_cl.config.optim import Optim
from bimodal_cl.config.training import Checkpoint, Ema, Tracking, Train
from bimodal_cl.losses.module.registry import LOSS_SETTINGS
from bimodal_cl.losses.rules.base import LossSettings
from bimodal_cl.settings import NotTruth, PathText, Section

if TYPE_CHECKING:
    Loss = LossSettings
else:  # which keys the section has depends on its name
    Loss = Annotated[Union[tuple(LOSS_SETTINGS.values())], Field(discriminator="name")]  # noqa: UP007 (help reads it)


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
    ema: Ema = Ema()
    checkpoint: Checkpoint = Checkpoint()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _scores_exist(self) -> Config:
        if self.checkpoint.best is not None and self.data.val is None and self.data.zero_shot is None:
            raise ValueError(f"checkpoint.best={self.checkpoint.best} needs data.val or data.zero_shot to be scored on")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return plain values as ``config.yaml`` holds them, without unset keys whose default is None."""
        return self.model_dump(mode="json")
