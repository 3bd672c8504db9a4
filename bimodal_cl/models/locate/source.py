"""A trained model that was found, before anything of it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

HUB, LOCAL = "hf-hub:", "local-dir:"


@dataclass(frozen=True)
class ModelSource:
    """A model that was found, before anything of it is loaded.

    Args:
        kind: ``checkpoint`` (our own), ``open_clip`` (config and weights), ``huggingface`` (transformers') or
            ``weights`` (a file alone).
        name: of the architecture, or of the folder, file or repository where no architecture is named.
        pretrained: which weights: a tag, or where they are.
        folder: what holds the model; None for a file of weights alone.
        weights: the file of weights; of sharded ones the index.
        architecture: the open_clip config that was named with the weights.
        tag: what open_clip says of a published tag (preprocessing, ``quick_gelu``); empty for anything else.
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
