"""Steps of the trainer with whole copies (DDP) and with shards (FSDP2) of the same small towers, on gloo processes."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from bimodal_cl.losses import build_loss
from bimodal_cl.models import build_model
from bimodal_cl.optim import build_optimizer
from bimodal_cl.optim.optimizers import OPTIMIZERS
from bimodal_cl.run_folder import RunFolder
from bimodal_cl.trainer import RunSettings, Trainer
from bimodal_cl.training.sharding import DataParallel, choose_spread, find_blocks
from bimodal_cl.training.speed.switches import apply_switches
from tests.test_losses.linear_towers import join

GLOBAL_BATCH_SIZE, NUM_STEPS, SIDE = 16, 3, 32
TEXT = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
VIT = {"patch_size": 16, "width": 32, "layers": 2, "head_width": 16}
RESNET = {"timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "linear"}


def freeze_images(model: nn.Module) -> None:
    """Freeze the image tower."""
    model.visual.requires_grad_(False)


def add_scalar(model: nn.Module) -> None:
    """Scale the texts' features, before they are normalized, by a learned scalar that changes them a little."""
    model.text.shift = nn.Parameter(torch.tensor(0.1))
    forward = model.text.forward
    model.text.forward = lambda tokens: forward(tokens) + model.text.shift


def switch(model: nn.Module) -> None:
    """Recompute the blocks in the backward pass, and turn TF32 on where a GPU would multiply in it."""
    apply_switches(model, "cuda", grad_checkpointing=True, tf32=True)


# Name: vision tower, change of the model, micro-batches, precision.
CASES: dict[str, tuple[dict[str, Any], Callable[[nn.Module], None] | None, int, str]] = {
    "vit": (VIT, None, 1, "no"),
    "micro-batches": (VIT, None, 4, "no"),
    "frozen images in micro-batches": (VIT, freeze_images, 2, "no"),
    "scalar in micro-batches": (VIT, add_scalar, 2, "no"),
    "batch norms in micro-batches": (RESNET, None, 2, "no"),
    "recomputed blocks in micro-batches": (VIT, switch, 2, "no"),
    "bf16": (VIT, None, 1, "bf16"),
    "batch norms in bf16": (RESNET, None, 1, "bf16"),
    "lamb": (VIT, None, 1, "no"),  # scales by norms of whole matrices
    "muon": (VIT, None, 1, "no"),  # multiplies whole matrices
}


def build_trainer(
    case: str,
    world_size: int,
    sharded: bool,
    micro_batches: int | None = None,
    precision: str | None = None,
    clip: float | None = 1.0,
    reshard: bool = True,
) -> Trainer:
    """Build the trainer of a case, not started yet; ``micro_batches`` and ``precision`` may differ from the case's."""
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, reshard_after_forward=reshard) if sharded else None
    vision, change, of_case, precision_of_case = CASES[case]
    num_micro_batches = micro_batches or of_case
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True, mixed_precision=precision or precision_of_case)
    torch.manual_seed(2)
    model = build_model(image_size=SIDE, embed_dim=8, vision=vision, text=TEXT).to(memory_format=torch.channels_last)
    if change is not None:
        change(model)
    loss = build_loss("clip")
    name = case if case in OPTIMIZERS else "adamw"
    hidden = [parameter for block in find_blocks(model) for parameter in block.parameters()]
    rates = {"learning_rate": 1e-3, "weight_decay": 0.1, "eps": 1e-2}
    return Trainer(
        accelerator=accelerator,
        model=model,
        loss=loss,
        optimizer=build_optimizer(model, loss.parameters(), name=name, hidden=hidden, **rates),
        open_stream=None,
        learning_rates_at=lambda step: defaultdict(lambda: 1e-3),
        evaluate=None,
        settings=RunSettings(10, 10, GLOBAL_BATCH_SIZE, num_micro_batches, 0, 1, 10, 10, 1, None, clip),
        folder=RunFolder(Path("not-written")),
        trackers=None,
        identity={},
        spread=choose_spread(plugin, world_size, model),
    )


def take_steps(case: str, rank: int, world_size: int, sharded: bool) -> dict[str, Any]:
    """Take steps, and return losses, norms of gradients, whole weights, the optimizer's state, and bytes kept here."""
    trainer = build_trainer(case, world_size, sharded)
    trainer.start()
    outcomes = [trainer.step(build_batch(step, rank, world_size)) for step in range(NUM_STEPS)]
    kept = count_bytes(trainer.parallel)
    with trainer.parallel.whole_encoder() as encoder:
        weights = {name: value.clone() for name, value in encoder.state_dict().items()} if rank == 0 else {}
    return {
        "losses": [out.loss.item() for out, _ in outcomes],
        "norms": [norm.item() for _, norm in outcomes],
        "weights": weights,
        "optimizer": trainer.parallel.gather_optimizer(),
        "temperature": trainer.loss.logit_scale.item(),
        "kept": kept,
        "units": sum(isinstance(module, FSDPModule) for module in trainer.model.modules()),
    }


def build_batch(step: int, rank: int, world_size: int) -> Any:
    """Build this process's share of a global batch."""
    generator = torch.Generator().manual_seed(step)
    pixels = torch.randint(256, (GLOBAL_BATCH_SIZE, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    tokens = torch.randint(1, 400, (GLOBAL_BATCH_SIZE, TEXT["context_length"]), generator=generator)
    tokens[:, -1] = TEXT["vocab_size"] - 1  # open_clip pools at the largest token
    ids = torch.arange(GLOBAL_BATCH_SIZE)
    share = GLOBAL_BATCH_SIZE // world_size
    parts = {"images": pixels, "tokens": tokens, "image_ids": ids, "text_ids": ids}
    return SimpleNamespace(**{name: part[rank * share : (rank + 1) * share] for name, part in parts.items()})


def count_bytes(parallel: DataParallel) -> dict[str, int]:
    """Count the bytes of parameters, gradients and moments that this process keeps."""
    kept = {"parameters": 0, "gradients": 0, "moments": 0}
    for parameter in parallel.parameters:
        kept["parameters"] += of_tensor(parameter)
        kept["gradients"] += of_tensor(parameter.grad)
        moments = [value for value in parallel.optimizer.state[parameter].values() if isinstance(value, Tensor)]
        kept["moments"] += sum(of_tensor(value) for value in moments if value.shape == parameter.shape)
    return kept


def of_tensor(tensor: Tensor | None) -> int:
    """Bytes of a tensor, of a sharded one only those of the part that is here."""
    assert tensor is not None
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local.numel() * local.element_size()


def run_rank(rank: int, world_sizes: tuple[int, ...], folder: str) -> None:
    """Join a gloo group of each size in turn, take all steps in it, and leave the results in ``folder``."""
    torch.set_num_threads(1)
    for world_size in world_sizes:
        if rank >= world_size:
            continue
        sizes = {"WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
        os.environ |= {name: str(value) for name, value in {"RANK": rank, "LOCAL_RANK": rank, **sizes}.items()}
        join(rank, world_size, folder)
        results = {}
        for case in CASES:
            results[case] = {kind: take_steps(case, rank, world_size, kind == "fsdp") for kind in ("ddp", "fsdp")}
        torch.save(results, Path(folder) / f"{world_size}-{rank}.pt")
        dist.destroy_process_group()
