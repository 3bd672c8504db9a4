"""Identify what features depend on: weights, architecture, tokenizer, precision, machine, code; and the data's content.

Nothing is told by names or times of files: weights and data are read and hashed by each command, which takes a small
part of the time that encoding takes. So a changed image, or a checkpoint that was written again, has other features.
"""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bimodal_cl
from bimodal_cl.data.storage.locations import is_remote
from bimodal_cl.files.checksums import hash_files

from ..encode import ScoredModel
from ..results import versions

if TYPE_CHECKING:
    import torch

    from bimodal_cl.data import LabelledImages, Manifest

_FORMAT = 1  # of the entries


def identify_model(model: ScoredModel, precision: str) -> dict[str, Any]:
    """Return what a model's features depend on besides the data.

    Args:
        model: the model.
        precision: of the towers.
    """
    import torch

    return {
        "format": _FORMAT,
        "weights_sha256": model.sha256,
        "architecture": asdict(model.encoder.architecture),
        "descriptions_sha256": model.descriptions_sha256,
        "precision": precision,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "device": _describe_device(model.encoder.device),
        "versions": versions(),
        "code_sha256": _hash_code(),
    }


def hash_shards(data: Manifest) -> str | None:
    """Return a SHA-256 of the content of shards and how it is read; None where a shard is not on this machine.

    Raises:
        OSError: a shard cannot be read.
    """
    if any(is_remote(shard.name) for shard in data.shards):
        return None
    paths = [Path(data.location(number)) for number in range(len(data.shards))]
    read = [data.captions, data.damaged, [(shard.num_images, shard.num_texts) for shard in data.shards]]
    return hash_values(read, hash_files(*paths))


def hash_labelled(labelled: LabelledImages) -> str:
    """Return a SHA-256 of labelled images, with their labels and class names.

    Raises:
        OSError: an image cannot be read.
    """
    labels = [label if isinstance(label, int) else label.tolist() for label in labelled.labels]
    return hash_values(labelled.digest(), labels, list(labelled.names_of_class))


def hash_values(*values: Any) -> str:
    """Return a SHA-256 of values that JSON can hold."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _describe_device(device: torch.device) -> str:
    """Return the processor: another one may change the last bits of features."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


@cache
def _hash_code() -> str:
    """Return a SHA-256 of the library's own source."""
    folder = Path(str(bimodal_cl.__file__)).parent
    return hash_files(*sorted(folder.rglob("*.py")))
