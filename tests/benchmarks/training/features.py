"""Measure how many pairs a second train heads on encoded features, on the CPU.

The features are random numbers in files of the real format, written to a temporary folder. The stream alone draws
images, captions and views, and reads their features; a whole step is the stream's batch through
:meth:`~bimodal_cl.trainer.Trainer.step`: heads, loss, backward pass, optimizer. All kinds take turns, a number of
batches each, so that a disturbance hits all of them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bimodal_cl.data.features.manifest import (
    FIRST_TEXTS_FILE,
    IMAGES_FILE,
    MOMENTS_FILE,
    TEXTS_FILE,
    FeatureManifest,
)
from bimodal_cl.data.features.stream import open_feature_stream
from bimodal_cl.data.features.tables import FeatureTable, FeatureTables
from bimodal_cl.data.shards.manifest import Manifest, Shard
from bimodal_cl.data.shards.mixture import Mixture
from bimodal_cl.losses import build_loss
from bimodal_cl.models.architecture import Architecture
from bimodal_cl.models.features.heads import FeatureHeads, TowersReference
from bimodal_cl.optim import build_optimizer
from tests.benchmarks.measure.machine import num_threads
from tests.benchmarks.measure.table import format_table
from tests.benchmarks.training.step_overhead import LEARNING_RATE, start_trainer

CAPTIONS = 5  # of an image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--batch-size", type=int, default=512, help="pairs of a step")
    parser.add_argument("--width", type=int, default=384, help="numbers of a feature, of images and of texts")
    parser.add_argument("--dim", type=int, default=384, help="width of the shared space")
    parser.add_argument("--heads", nargs="+", default=["linear", "mlp", "residual"], help="of both towers")
    parser.add_argument("--losses", nargs="+", default=["clip", "isogclr"], help="of the step")
    parser.add_argument("--images", type=int, default=100_000, help="images of the data set, with 5 captions each")
    parser.add_argument("--steps", type=int, default=20, help="batches of a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each kind")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    if arguments.quick:
        arguments.batch_size, arguments.images, arguments.steps, arguments.rounds = 16, 100, 2, 2
    torch.set_num_threads(num_threads(arguments.threads))
    with tempfile.TemporaryDirectory() as folder:
        tables, mixture = _write_features(Path(folder), arguments)
        kinds = {"stream alone": _batches(tables, mixture, arguments)}
        for head in arguments.heads:
            for loss in arguments.losses:
                kinds[f"{head}, {loss}"] = _steps(head, loss, tables, mixture, arguments)
        seconds: dict[str, list[float]] = {name: [] for name in kinds}
        for number in range(arguments.rounds + 1):
            for name, work in kinds.items():
                start = time.perf_counter()
                for _ in islice(work, arguments.steps):
                    pass
                if number:  # the first warms up
                    seconds[name].append(time.perf_counter() - start)
    pairs = arguments.steps * arguments.batch_size
    print(
        f"\nbatches of {arguments.batch_size}, features of {arguments.width}, shared space of {arguments.dim}; "
        f"medians of {arguments.rounds} rounds of {arguments.steps} batches"
    )
    rows = [
        [name, *(f"{pairs / each:,.0f}" for each in (statistics.median(times), max(times), min(times)))]
        for name, times in seconds.items()
    ]
    print(format_table(["heads, loss", "pairs/s", "slowest", "fastest"], rows))


def _write_features(folder: Path, arguments: argparse.Namespace) -> tuple[FeatureTables, Mixture]:
    images, width = arguments.images, arguments.width
    random = np.random.default_rng(0)
    mixture = Mixture([Manifest(folder, "lines", (Shard("00000.tar", images, CAPTIONS * images, 0),))])
    first_text_ids = np.arange(images + 1, dtype=np.int64) * CAPTIONS
    np.save(folder / FIRST_TEXTS_FILE, first_text_ids)
    np.save(folder / IMAGES_FILE, random.standard_normal((1, images, width), np.float32).astype(np.float16))
    np.save(folder / TEXTS_FILE, random.standard_normal((CAPTIONS * images, width), np.float32).astype(np.float16))
    zero, one = np.zeros(width), np.ones(width)
    np.savez(folder / MOMENTS_FILE, image_mean=zero, image_variance=one, text_mean=zero, text_variance=one)
    manifest = FeatureManifest(
        folder=folder,
        shards="",
        digest=mixture.digest,
        num_images=images,
        num_texts=CAPTIONS * images,
        image_width=width,
        text_width=width,
        views=0,
        crop_scale=(1.0, 1.0),
        flip=False,
        seed=0,
        towers_sha256="",
    )
    return FeatureTables([FeatureTable(manifest)]), mixture


def _batches(tables: FeatureTables, mixture: Mixture, arguments: argparse.Namespace) -> Iterator[Any]:
    stream = partial(open_feature_stream, tables, mixture, arguments.batch_size, seed=0, epoch=0, start_step=0)
    return iter(stream(num_epochs=10**6, shuffle_window=8192))


def _steps(
    head: str, loss_name: str, tables: FeatureTables, mixture: Mixture, arguments: argparse.Namespace
) -> Iterator[Any]:
    torch.manual_seed(0)
    architecture = Architecture(
        arguments.dim,
        {"image_size": 224, "timm_proj": head},
        {"context_length": 77, "hf_proj_type": head},
    )
    model = FeatureHeads(architecture, TowersReference("", "", "norm"), tables.moments()).train()
    hyper = {} if loss_name == "clip" else {"rho": 6.0}
    loss = build_loss(loss_name, num_images=mixture.num_images, num_texts=mixture.num_texts, **hyper)
    optimizer = build_optimizer(model, loss.parameters(), learning_rate=LEARNING_RATE, weight_decay=0.1)
    trainer = start_trainer(model, loss, optimizer, arguments.batch_size)
    return map(trainer.step, _batches(tables, mixture, arguments))
