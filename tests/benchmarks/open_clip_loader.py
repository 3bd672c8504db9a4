"""Measure open_clip's loader with another interpreter: ``python open_clip_loader.py '{"shards": ...}'``.

That interpreter needs open_clip_torch and the webdataset that open_clip's loader is written for, 0.2.86, and nothing of
this project. It prints one line of JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any


def take_batches(batches: Iterable[Any], warm_up: int, count: int) -> tuple[float, float]:
    """Take batches without doing anything with them.

    Returns:
        Seconds, and seconds of CPU of this process and its children, for ``count`` batches after ``warm_up`` others.
    """
    begin = cpu_begin = 0.0
    number = 0
    for number, _ in enumerate(batches, start=1):
        if number == warm_up:
            begin, cpu_begin = time.perf_counter(), _read_cpu_seconds()
        if number == warm_up + count:
            return time.perf_counter() - begin, _read_cpu_seconds() - cpu_begin
    raise RuntimeError(f"the loader gave {number} batches, {warm_up + count} are needed")


def _read_cpu_seconds() -> float:
    """Return the CPU time of this process and its living children so far; NaN without ``/proc``."""
    ticks = 0
    for process in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return float("nan")
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(
    shards: str, num_samples: int, side: int, batch_size: int, num_workers: int, warm_up: int, count: int
) -> dict[str, Any]:
    """Measure ``get_wds_dataset`` with open_clip's defaults: crop, normalization, tokenizer, shuffling.

    Args:
        shards: their paths, in brace notation.
        num_samples: in them.
        side: of the images, pixels.
        batch_size, num_workers: of the loader.
        warm_up, count: batches before, and batches that are measured.
    """
    from open_clip.tokenizer import SimpleTokenizer
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from open_clip_train.data import get_wds_dataset

    arguments = Namespace(
        train_data=shards,
        train_data_upsampling_factors=None,
        train_num_samples=num_samples,
        dataset_resampled=False,
        batch_size=batch_size,
        workers=num_workers,
        world_size=1,
        seed=0,
    )
    preprocess = image_transform_v2(PreprocessCfg(size=side), is_train=True)
    data = get_wds_dataset(arguments, preprocess, is_train=True, tokenizer=SimpleTokenizer())
    seconds, cpu = take_batches(data.dataloader, warm_up, count)
    versions = f"open_clip {version('open_clip_torch')}, webdataset {version('webdataset')}, Pillow {version('pillow')}"
    return {"seconds": seconds, "cpu": cpu, "samples": count * batch_size, "versions": versions}


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
