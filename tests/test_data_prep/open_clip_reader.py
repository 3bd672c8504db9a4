"""All captions of some shards as open_clip's own loader gives them; also a program for another interpreter.

    python open_clip_reader.py train|val COUNT SHARD...

prints them as JSON. It imports nothing of this project.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import torch

BATCH_SIZE = 8


def read_captions(shards: list[str], count: int, is_train: bool) -> list[str]:
    """Read ``count`` samples in batches of 8 through ``get_wds_dataset``, with what its command line would hand over.

    Every image must arrive decoded, as RGB.
    """
    from open_clip_train.data import get_wds_dataset

    seen: list[str] = []

    def preprocess(image):
        assert image.mode == "RGB" and min(image.size) > 0
        return torch.tensor([float(image.width)])

    def tokenize(text):
        seen.append(text)
        return torch.tensor([[len(seen) - 1]])

    args = SimpleNamespace(
        train_data="::".join(shards),
        val_data="::".join(shards),
        train_num_samples=count,
        val_num_samples=count,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=0,
        workers=0,
        world_size=1,
        batch_size=BATCH_SIZE,
    )
    loader = get_wds_dataset(args, preprocess, is_train, tokenizer=tokenize).dataloader
    numbers = []
    for images, texts in loader:
        assert len(images) == len(texts)
        numbers += texts.flatten().tolist()
    return [seen[number] for number in numbers]


if __name__ == "__main__":
    print(json.dumps(read_captions(sys.argv[3:], int(sys.argv[2]), sys.argv[1] == "train")))
