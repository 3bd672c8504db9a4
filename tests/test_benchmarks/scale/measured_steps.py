"""Measure on gloo processes what docs/scale.md computes: the bytes of every collective, and those of the tables."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.functional import normalize

from bimodal_cl.losses import build_loss
from bimodal_cl.losses.tables.anchors import AnchorTable
from tests.benchmarks.scale.budget import Run
from tests.benchmarks.scale.traffic import Traffic
from tests.test_losses.linear_towers import join
from tests.test_training.sharding.sharded_steps import GLOBAL_BATCH_SIZE, build_batch, build_trainer

BATCH, DIM, IMAGES, TEXTS = 32, 12, 101, 203
OPTIONS: dict[str, dict[str, Any]] = {"isogclr": {"rho": 0.5}, "rgcl_g": {"rho": 0.5}}
LOSSES = ("clip", "siglip", "cyclip", "macl", "macl-anchor", "sogclr", "isogclr", "rgcl_g")
WITH_TABLES = ("macl-anchor", "sogclr", "isogclr", "rgcl_g")
STEPS: dict[str, dict[str, Any]] = {  # of the trainer, by name
    "ddp": {},
    "fsdp": {"fsdp": True},
    "fsdp, weights kept": {"fsdp": True, "reshard": False},
    "fsdp, bf16": {"fsdp": True, "bf16": True},
    "fsdp, 2 micro-batches": {"fsdp": True, "micro_batches": 2},
}


def loss_runs(ranks: int) -> dict[str, Run]:
    """The runs whose losses are measured, by name."""
    run = Run("clip", ranks, BATCH, DIM, 0, IMAGES, TEXTS)
    plain = {name: {"loss": name} for name in LOSSES}
    sharded = {f"{name}, sharded": {"loss": name, "sharded_tables": True} for name in WITH_TABLES}
    rounded = {"isogclr, bf16": {"loss": "isogclr", "bf16_products": True}}
    return {name: Run(**{**vars(run), **changes}) for name, changes in {**plain, **sharded, **rounded}.items()}


def measure_loss(run: Run, rank: int) -> dict[str, Any]:
    """Take a step of a loss; return its collectives and the bytes of its tables on this rank."""
    name, _, kind = run.loss.partition("-")
    options = {**OPTIONS.get(name, {}), **({"alignment": kind} if kind else {})}
    options |= {"tables": "sharded"} if run.sharded_tables else {}
    options |= {"products": "bf16"} if run.bf16_products else {}
    loss = build_loss(name, num_images=IMAGES, num_texts=TEXTS, **options)
    share = BATCH // run.ranks
    images, texts = (normalize(torch.randn(share, DIM), dim=1).requires_grad_() for _ in range(2))
    ids = torch.arange(share) + rank * share  # every rank keeps as many of their rows
    with Traffic() as traffic:
        loss(images, texts, ids, ids).loss.backward()
    tables = [module for module in loss.modules() if isinstance(module, AnchorTable)]
    columns = [getattr(table, column) for table in tables for column in table.columns]
    kept = sum(column.untyped_storage().nbytes() for column in columns)
    return {"counts": dict(traffic.counts), "tables": kept}


def measure_steps(run: Run, rank: int) -> dict[str, Any]:
    """Take three steps of the trainer; return the last one's bytes by kind, less those of its loss, and its sizes."""
    world_size, precision = run.ranks, "bf16" if run.bf16 else "no"
    how = {"micro_batches": run.micro_batches, "precision": precision, "reshard": run.reshard}
    trainer = build_trainer("vit", world_size, run.fsdp, clip=None, **how)
    parameters = list(trainer.encoder.parameters())
    sizes = [(tuple(parameter.shape), parameter.numel()) for parameter in parameters if parameter.requires_grad]
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in trainer.encoder.buffers())
    trainer.start()
    for step in (0, 1):  # DDP agrees on the order of gradients in the second step
        trainer.step(build_batch(step, rank, world_size))
    with Traffic() as traffic:
        trainer.step(build_batch(2, rank, world_size))
    kept = sum(
        tensor.untyped_storage().nbytes() if not hasattr(tensor, "to_local") else tensor.to_local().nbytes
        for parameter in trainer.parameters
        for tensor in (parameter, parameter.grad, *(trainer.optimizer.state[parameter][n] for n in MOMENTS))
    )
    return {"counts": dict(traffic.counts), "sizes": sizes, "buffers": buffers, "kept": kept}


MOMENTS = ("exp_avg", "exp_avg_sq")
STEP = Run("clip", 1, GLOBAL_BATCH_SIZE, 8, 0, 1, 1)


def run_rank(rank: int, world_sizes: tuple[int, ...], folder: str) -> None:
    """Join a gloo group of each size in turn, measure all steps in it, and leave the results in ``folder``."""
    torch.set_num_threads(1)
    for world_size in world_sizes:
        if rank >= world_size:
            continue
        sizes = {"WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
        os.environ |= {name: str(value) for name, value in {"RANK": rank, "LOCAL_RANK": rank, **sizes}.items()}
        join(rank, world_size, folder)
        results: dict[str, Any] = {name: measure_loss(run, rank) for name, run in loss_runs(world_size).items()}
        for name, changes in STEPS.items():
            results[f"step: {name}"] = measure_steps(replace(STEP, ranks=world_size, **changes), rank)
        torch.save(results, Path(folder) / f"{world_size}-{rank}.pt")
        dist.destroy_process_group()


def counted(transfers: list[Any]) -> Counter[tuple[str, int]]:
    """Collectives by kind and bytes, as :class:`Traffic` counts them."""
    counts: Counter[tuple[str, int]] = Counter()
    for transfer in transfers:
        assert transfer.size == int(transfer.size)
        counts[transfer.kind, int(transfer.size)] += transfer.times
    return counts
