"""A training config with two small locked towers, and shards of noise for it."""

from __future__ import annotations

import copy
import io
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from tests.test_data.tiny_shards import caption_count, write_manifest, write_tar
from tests.test_models.small_models import text_folder

WORDS = ("a", "dog", "cat", "red", "blue")
LOCKED: dict[str, Any] = {
    "seed": 3,
    "data": {"num_workers": 0, "crop_scale": [0.5, 1.0], "flip": True},
    "model": {
        "image_size": 32,
        "embed_dim": 16,
        "vision": {"timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "mlp", "timm_drop": 0.1},
        "text": {"hf_pooler_type": "mean_pooler", "hf_proj_type": "mlp", "context_length": 12},
    },
    "loss": {"name": "isogclr", "tau_init": 0.05, "rho": 1.0},
    "optim": {
        "learning_rate": 0.01,
        "warmup_steps": 2,
        "image": {"lock": True},
        "text": {"lock": True},
    },
    "train": {"num_epochs": 2, "global_batch_size": 12, "log_every": 1, "device": "cpu"},
}


def noise(number: int, side: int = 40) -> bytes:
    """A PNG of blocks of random colours."""
    blocks = np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks.repeat(side // 5, 0).repeat(side // 5, 1)).save(file, "PNG")
    return file.getvalue()


def captions_of(number: int) -> list[str]:
    """One to three captions of one to six words."""
    random = np.random.default_rng(1000 + number)
    return [" ".join(random.choice(WORDS, random.integers(1, 7))) for _ in range(caption_count(number))]


def write_noise(folder: Path, sizes: Sequence[int], first: int = 0, broken: Collection[int] = ()) -> Path:
    """Write shards of images from number `first` on; images in `broken` have bytes that are no image."""
    number, counts = 0, []
    for shard, size in enumerate(sizes):
        members, num_texts = [], 0
        for _ in range(size):
            captions = captions_of(first + number)
            members.append((f"{number:04d}.png", b"broken" if number in broken else noise(first + number)))
            members.append((f"{number:04d}.txt", "\n".join(captions).encode()))
            num_texts += len(captions)
            number += 1
        write_tar(folder / f"{shard:05d}.tar", members)
        counts.append((f"{shard:05d}.tar", size, num_texts))
    write_manifest(folder, counts)
    return folder


def merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return settings with some changed, at any depth."""
    merged = dict(values)
    for key, value in changes.items():
        merged[key] = merge(merged.get(key) or {}, value) if isinstance(value, dict) and key != "loss" else value
    return merged


def write_locked_config(path: Path, train: Path, changes: dict[str, Any] | None = None) -> Path:
    """Write ``LOCKED`` with changes; the text tower is a random BERT, which is written beside it if it is not given."""
    bert = path.parent / "bert"
    values = copy.deepcopy(LOCKED) | {"output": str(path.with_suffix(""))}
    values["data"]["train"] = str(train)
    values["model"]["text"]["hf_model_name"] = str(bert)
    values = merge(values, changes or {})
    if (values["model"]["text"] or {}).get("hf_model_name") == str(bert) and not bert.exists():
        import torch

        torch.manual_seed(0)
        text_folder(bert, "bert")
    path.write_text(yaml.safe_dump(values))
    return path
