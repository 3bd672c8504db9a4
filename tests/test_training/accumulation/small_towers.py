"""Two small towers with dropout, steps of the trainer with them, and the same steps with every micro-batch's graph."""

import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.functional import normalize

from bimodal_cl.losses import build_loss
from bimodal_cl.run_folder import RunFolder
from bimodal_cl.trainer import RunSettings, Trainer, seed_of_step
from tests.test_losses.linear_towers import CASES, GLOBAL_BATCH_SIZE, NUM_IMAGES, NUM_TEXTS, global_batch, join

SEED, NUM_STEPS, NUM_MICRO_BATCHES = 5, 2, 4
SIDE, NUM_TOKENS, VOCABULARY, WIDTH, DIM = 4, 7, 30, 24, 6


class SmallTowers(nn.Module):
    """A tower for pixels and one for tokens, both with dropout.

    Args:
        dropout: probability.
        batch_norm: whether the image tower has a batch norm.
        frozen_images: whether the image tower stays as it is.
    """

    def __init__(self, dropout: float = 0.3, batch_norm: bool = False, frozen_images: bool = False) -> None:
        super().__init__()
        norm = nn.BatchNorm1d(WIDTH) if batch_norm else nn.Identity()
        first = nn.Linear(3 * SIDE**2, WIDTH)
        self.visual = nn.Sequential(first, norm, nn.GELU(), nn.Dropout(dropout), nn.Linear(WIDTH, DIM))
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.text = nn.Sequential(nn.Dropout(dropout), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, DIM))
        self.visual.requires_grad_(not frozen_images)

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        pixels = pixels.flatten(1).to(self.embedding.weight.dtype) / 255
        features = self.visual(pixels), self.text(self.embedding(tokens).mean(dim=1))
        images, texts = (part if part.dtype == torch.float64 else part.float() for part in features)
        return normalize(images, dim=-1), normalize(texts, dim=-1)


def build_towers(bf16: bool = False, **options: Any) -> SmallTowers:
    """Build towers with the same weights every time, in float64 unless they are to run in bf16."""
    torch.manual_seed(1)
    towers = SmallTowers(**options)
    return towers if bf16 else towers.double()


def build_batch(step: int, rank: int, world_size: int) -> Any:
    """Build this process's share of a global batch of 64 pairs."""
    generator = torch.Generator().manual_seed(step)
    pixels = torch.randint(256, (GLOBAL_BATCH_SIZE, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    tokens = torch.randint(VOCABULARY, (GLOBAL_BATCH_SIZE, NUM_TOKENS), generator=generator)
    parts = {"images": pixels, "tokens": tokens}
    parts["image_ids"], parts["text_ids"] = global_batch(step)[2:]
    share = GLOBAL_BATCH_SIZE // world_size
    return SimpleNamespace(**{name: part[rank * share : (rank + 1) * share] for name, part in parts.items()})


def build_case(case: str, bf16: bool, towers: dict[str, Any]) -> tuple[SmallTowers, nn.Module, torch.optim.Optimizer]:
    """Build towers, a loss of ``linear_towers.CASES`` and an optimizer over both."""
    model = build_towers(bf16, **towers)
    name, hyper = CASES[case]
    loss = build_loss(name, num_images=NUM_IMAGES, num_texts=NUM_TEXTS, **hyper)
    loss = loss if bf16 else loss.double()
    parameters = [parameter for parameter in (*model.parameters(), *loss.parameters()) if parameter.requires_grad]
    return model, loss, torch.optim.SGD([{"params": parameters, "name": "all"}], lr=0.05)


def take_steps(
    case: str,
    rank: int,
    world_size: int,
    *,
    num_micro_batches: int = NUM_MICRO_BATCHES,
    bf16: bool = False,
    loss_scale: float | None = None,
    **towers: Any,
) -> dict[str, Any]:
    """Take steps of :meth:`Trainer.step`, and return their losses and gradients, the state at the end, and a count.

    The count is that of the numbers that the ranks exchanged to average gradients, in all steps together.

    Args:
        case: one of ``linear_towers.CASES``.
        rank, world_size: the place of this process in the group that it has joined.
        num_micro_batches: ``train.accumulate_features``.
        bf16: whether the towers run under autocast.
        loss_scale: scale the loss by this, as training in fp16 does.
        towers: arguments of :class:`SmallTowers`.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True, mixed_precision="bf16" if bf16 else "no")
    assert accelerator.num_processes == world_size
    if loss_scale is not None:
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=loss_scale)
    model, loss, optimizer = build_case(case, bf16, towers)
    settings = RunSettings(
        num_steps=10,
        steps_per_epoch=10,
        global_batch_size=GLOBAL_BATCH_SIZE,
        accumulate_features=num_micro_batches,
        seed=SEED,
        log_every=1,
        evaluate_every=10,
        checkpoint_every=10,
        keep_last=1,
        best=None,
        max_grad_norm=None,
    )
    trainer = Trainer(
        accelerator=accelerator,
        model=model,
        loss=loss,
        optimizer=optimizer,
        open_stream=None,
        learning_rates_at=lambda step: {"all": 0.05},
        evaluate=None,
        settings=settings,
        folder=RunFolder(Path("not-written")),
        trackers=None,
        identity={},
    )
    trainer.model, trainer.optimizer = accelerator.prepare(model, optimizer)
    exchanged: list[int] = []
    if world_size > 1:
        trainer.model.register_comm_hook(exchanged, count_and_average)
    losses, gradients = [], []
    for step in range(NUM_STEPS):
        out, _ = trainer.step(build_batch(step, rank, world_size))
        losses.append(out.loss.detach())
        gradients.append([parameter.grad.clone() for parameter in trainer.parameters])
    steps = {"losses": losses, "gradients": gradients, "state": copy_state(model, loss)}
    return {"steps": steps, "exchanged": sum(exchanged)}


def count_and_average(exchanged: list[int], bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """Average gradients over ranks, as DistributedDataParallel does by itself, and note how many were exchanged."""
    exchanged.append(bucket.buffer().numel())
    return allreduce_hook(dist.group.WORLD, bucket)


def take_steps_with_graphs(
    case: str, rank: int, world_size: int, *, bf16: bool = False, loss_scale: float | None = None, **towers: Any
) -> dict[str, Any]:
    """Take the same steps with the graphs of all micro-batches at once, and average the gradients by hand."""
    model, loss, optimizer = build_case(case, bf16, towers)
    parameters = optimizer.param_groups[0]["params"]
    losses, gradients = [], []
    for step in range(NUM_STEPS):
        batch = build_batch(step, rank, world_size)
        loss.set_progress(step / 10)
        torch.manual_seed(seed_of_step(SEED, step, rank))
        if world_size > 1:
            for buffer in model.buffers():  # as DistributedDataParallel does before a step
                dist.broadcast(buffer, 0)
        parts = [part.chunk(NUM_MICRO_BATCHES) for part in (batch.images, batch.tokens)]
        features = []
        for micro_batch in zip(*parts, strict=True):
            with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
                features.append(model(*micro_batch))
        image_features, text_features = (torch.cat(part) for part in zip(*features, strict=True))
        out = loss(image_features, text_features, batch.image_ids, batch.text_ids)
        optimizer.zero_grad()
        out.loss.backward()
        for parameter in model.parameters():
            if world_size > 1 and parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= world_size
        losses.append(out.loss.detach())
        gradients.append([parameter.grad.clone() for parameter in parameters])
        optimizer.step()
    return {"steps": {"losses": losses, "gradients": gradients, "state": copy_state(model, loss)}}


def copy_state(model: nn.Module, loss: nn.Module) -> dict[str, Tensor]:
    """Copy the weights and running statistics of the towers, and the loss's parameters and tables."""
    return {key: value.detach().clone() for part in (model, loss) for key, value in part.state_dict().items()}


# What is compared between the trainer's steps and those with all graphs: a case of the losses and options of both.
COMPARED: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ("clip", "siglip", "cyclip", "macl", "macl-anchor", "sogclr", "isogclr", "rgcl_g")},
    "isogclr-tiled": ("isogclr-tiled", {}),
    "batch norm": ("clip", {"batch_norm": True}),
    "frozen images": ("clip", {"frozen_images": True}),
    "scaled loss": ("clip", {"loss_scale": 1024.0}),
    "bf16": ("isogclr", {"bf16": True}),
}
# Compared between four micro-batches and one batch, without dropout, which one batch would draw otherwise.
WITHOUT_DROPOUT = ("clip", "siglip", "macl", "isogclr")


def run_rank(rank: int, world_sizes: tuple[int, ...], folder: str) -> None:
    """Join a gloo group of each size in turn, take all steps in it, and leave the results in ``folder``."""
    torch.set_num_threads(1)
    for world_size in world_sizes:
        if rank >= world_size:
            continue
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
        for name, value in place.items():
            os.environ.pop(name, None)
            if world_size > 1:
                os.environ[name] = str(value)
        join(rank, world_size, folder)
        results: dict[str, Any] = {}
        for name, (case, options) in COMPARED.items():
            results[name] = take_steps(case, rank, world_size, **options)
            results[f"{name}, graphs"] = take_steps_with_graphs(case, rank, world_size, **options)
        for case in WITHOUT_DROPOUT:
            for count in (1, NUM_MICRO_BATCHES):
                of_count = take_steps(case, rank, world_size, num_micro_batches=count, dropout=0.0)
                results[f"{case} without dropout, {count}"] = of_count
        torch.save(results, Path(folder) / f"{world_size}-{rank}.pt")
        dist.destroy_process_group()
