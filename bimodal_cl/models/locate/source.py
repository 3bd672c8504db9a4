"""The location of a trained model, found but not yet loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bimodal_cl.models.weights.file_names import EMA_FILE

# Schemas of model names, as in open_clip.
HUB, LOCAL = "hf-hub:", "local-dir:"
# Which weights of a checkpoint: those that were trained, or their exponential moving average over the steps.
TRAINED, AVERAGED = "model", "ema"
WEIGHTS = (TRAINED, AVERAGED)


@dataclass(frozen=True)
class ModelSource:
    """Where a trained model is and which format it has.

    Args:
        kind: ``checkpoint`` (our own), ``open_clip`` (config and weights), ``huggingface`` (transformers') or
            ``weights`` (a single file).
        name: the name of the architecture, or else of the folder, file or repository.
        pretrained: the tag of the weights, or their location.
        weights: the weights file; of sharded weights, the index.
        folder: the folder that holds the model; None for a weights file on its own.
        architecture: the open_clip config that was named with the weights.
        tag: open_clip's settings of a published tag (preprocessing, ``quick_gelu``); otherwise empty.
        run: the folder of the run, where a run was named.
    """

    kind: Literal["checkpoint", "open_clip", "huggingface", "weights"]
    name: str
    pretrained: str
    weights: Path
    folder: Path | None = None
    architecture: str | None = None
    tag: Mapping[str, Any] = field(default_factory=dict)
    run: Path | None = None

    @property
    def of_checkpoint(self) -> str | None:
        """Which weights of a checkpoint they are, one of ``WEIGHTS``; None for a model that is no checkpoint."""
        if self.kind != "checkpoint":
            return None
        return AVERAGED if self.weights.name == EMA_FILE else TRAINED
