"""A small two-tower model trained on a share of a fixed global batch, as data-parallel training would do it."""

from __future__ import annotations

import datetime
import importlib.util
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.nn.functional import normalize

from bimodal_cl.distributed import ALL_GATHER
from bimodal_cl.losses import LOSSES, build_loss

GLOBAL_BATCH_SIZE = 64
NUM_STEPS = 3
NUM_IMAGES = 40
NUM_TEXTS = 100
FEATURES, DIM = 10, 6

SWAPPED = ("clip", "siglip", "cyclip", "macl-anchor", "sogclr", "isogclr-tiled", "rgcl_g")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": ("clip", {}),
    "clip-tiled": ("clip", {"tile_size": 5}),
    "siglip": ("siglip", {"bias_init": -4.0}),
    "siglip-tiled": ("siglip", {"bias_init": -4.0, "tile_size": 5}),
    "siglip-all-negatives": ("siglip", {"bias_init": -4.0, "mask_repeats": False}),
    "cyclip": ("cyclip", {"lambda_in_modal": 0.4}),
    "cyclip-tiled": ("cyclip", {"lambda_cross_modal": 0.7, "tile_size": 6}),
    "macl": ("macl", {"text_tau_base": 0.2}),
    "macl-unweighted": ("macl", {"reweight": False, "tile_size": 7}),
    "macl-anchor": ("macl", {"alignment": "anchor", "mu": 0.3}),
    "sogclr": ("sogclr", {"gamma": 0.4}),
    "isogclr": ("isogclr", {"rho": 2.0, "tau_init": 0.05, "eta": 0.005}),
    "isogclr-tiled": ("isogclr", {"rho_fraction": 0.5, "tau_init": 0.05, "eta": 0.005, "tile_size": 6}),
    "isogclr-all-negatives": ("isogclr", {"rho": 2.0, "tau_init": 0.05, "mask_repeats": False}),
    "isogclr-adam": (
        "isogclr",
        {"rho": 2.0, "tau_init": 0.05, "eta": 0.005, "tau_optimizer": "adam", "eta_schedule": "exp"},
    ),
    "rgcl_g": ("rgcl_g", {"rho": 2.0, "tau_init": 0.1}),
    "rgcl_g-tiled": ("rgcl_g", {"rho_fraction": 0.5, "tau_init": 0.1, "gamma": 0.5, "tile_size": 7}),
}
CASES |= {name: (name, {}) for name in LOSSES if name not in {name for name, _ in CASES.values()}}  # of a new loss


def global_batch(step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs ``[64, features]`` of both towers and ids; images and texts repeat, also across the ranks' borders."""
    rng = np.random.default_rng(1000 + step)
    image_ids = rng.integers(0, NUM_IMAGES, GLOBAL_BATCH_SIZE)
    text_ids = image_ids * 2 + rng.integers(0, 2, GLOBAL_BATCH_SIZE)
    shared = rng.random(GLOBAL_BATCH_SIZE) < 0.2
    text_ids[shared] = rng.integers(2 * NUM_IMAGES, NUM_TEXTS, int(shared.sum()))
    images, texts = rng.normal(size=(2, GLOBAL_BATCH_SIZE, FEATURES))
    return torch.tensor(images), torch.tensor(texts), torch.tensor(image_ids), torch.tensor(text_ids)


def train(
    case: str,
    rank: int,
    world_size: int,
    *,
    steps: Iterable[int] = range(NUM_STEPS),
    start: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Take a few steps and return what must not depend on the number of ranks.

    Args:
        case: one of :data:`CASES`.
        rank: of this process; it takes its share of every global batch.
        world_size: number of processes.
        steps: the global batches.
        start: what an earlier call returned, to go on from its ``tables`` and ``weights``.
        options: further arguments of ``build_loss``.

    Returns:
        ``losses`` and ``metrics`` of every step, ``gradients`` of every step (the towers' averaged over ranks,
        as DistributedDataParallel does), the final ``tables`` and the final ``weights``.
    """
    name, hyper = CASES[case]
    generator = torch.Generator().manual_seed(7)
    towers = [nn.Linear(FEATURES, DIM, bias=False, dtype=torch.float64) for _ in range(2)]
    for tower in towers:
        nn.init.normal_(tower.weight, generator=generator)
    loss = build_loss(name, num_images=NUM_IMAGES, num_texts=NUM_TEXTS, **hyper, **options).double()
    if start is not None:
        loss.load_state_dict(start["tables"])
        for tower, weight in zip(towers, start["weights"], strict=True):
            tower.weight.data.copy_(weight)
    parameters = [tower.weight for tower in towers] + list(loss.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    share = GLOBAL_BATCH_SIZE // world_size
    own = slice(rank * share, (rank + 1) * share)
    losses, metrics, gradients = [], [], []
    for step in steps:
        loss.set_progress(step / 10)
        images, texts, image_ids, text_ids = (part[own] for part in global_batch(step))
        out = loss(normalize(towers[0](images), dim=-1), normalize(towers[1](texts), dim=-1), image_ids, text_ids)
        optimizer.zero_grad()
        out.loss.backward()
        if world_size > 1:  # the model is wrapped; the loss is not, and looks after its own parameter
            for tower in towers:
                dist.all_reduce(tower.weight.grad)
                tower.weight.grad /= world_size
        losses.append(out.loss.detach())
        metrics.append(out.metrics)
        gradients.append([parameter.grad.clone() for parameter in parameters])
        optimizer.step()
    tables = {key: value.detach().clone() for key, value in loss.state_dict().items()}
    weights = [tower.weight.detach().clone() for tower in towers]
    return {"losses": losses, "metrics": metrics, "gradients": gradients, "tables": tables, "weights": weights}


def provoke_refusals(rank: int, world_size: int) -> dict[str, str]:
    """Mistakes of one rank; every rank must refuse, since one that goes on alone would wait for the others for ever."""
    refusals = {}
    for mistake in ("sizes", "nan", "id", "empty", "texts", "text ids", "ids", "width"):
        loss = build_loss("isogclr", num_images=NUM_IMAGES, num_texts=NUM_TEXTS)
        images, texts, image_ids, text_ids = (
            part[: 4 + (rank if mistake == "sizes" else 0)] for part in global_batch(0)
        )
        images = images.clone()
        if rank == world_size - 1 and mistake == "nan":
            images[2] = torch.nan
        if rank == world_size - 1 and mistake == "id":
            image_ids = image_ids + NUM_IMAGES
        width = DIM
        if rank == world_size - 1:
            keep = {"empty": 0, "texts": 3, "text ids": 3, "ids": 3}.get(mistake, 4)
            images = images[:0] if mistake == "empty" else images
            texts = texts[:keep] if mistake in ("empty", "texts") else texts
            image_ids = image_ids[:keep] if mistake in ("empty", "ids") else image_ids
            text_ids = text_ids[:keep] if mistake in ("empty", "ids", "text ids") else text_ids
            width = DIM - 1 if mistake == "width" else DIM
        try:
            loss(normalize(images[:, :DIM]), normalize(texts[:, :width]), image_ids, text_ids)
        except ValueError as refusal:
            refusals[mistake] = str(refusal)
        if not loss.image_anchors.log_u.isinf().all():
            refusals[mistake] = "the tables moved"
    refusals["tau"] = provoke_a_negative_tau(rank, world_size)
    return refusals


def provoke_a_negative_tau(rank: int, world_size: int) -> str:
    """The last rank's pairs are so badly aligned that MACL's temperature would be negative there, and there alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = build_loss("macl", num_images=NUM_IMAGES, num_texts=NUM_TEXTS, alignment="anchor", alpha=2.0)
    features = torch.eye(4)
    ids = torch.arange(4) + 4 * rank
    sign = -1.0 if rank == world_size - 1 else 1.0
    message = "not refused"
    try:
        loss(features, sign * features, ids, ids)
    except (ValueError, RuntimeError) as refusal:  # RuntimeError: the collective that the refusing rank left
        message = str(refusal)
    return message if loss.image_anchors.alignment.isnan().all() else f"the tables moved, then: {message}"


def compute_siglip_gradients(whose: str, rank: int, world_size: int) -> list[Tensor]:
    """Gradients of both towers, scale and bias in one step of SigLIP, averaged over ranks.

    Args:
        whose: ``"ours"``, whose scale and bias need no averaging, or ``"open_clip"``, whose do.
        rank: of this process; it takes its share of a global batch, in which repeats are negatives.
        world_size: number of processes.
    """
    generator = torch.Generator().manual_seed(3)
    towers = [nn.Linear(FEATURES, DIM, bias=False, dtype=torch.float64) for _ in range(2)]
    for tower in towers:
        nn.init.normal_(tower.weight, generator=generator)
    share = GLOBAL_BATCH_SIZE // world_size
    images, texts, image_ids, text_ids = (part[rank * share : (rank + 1) * share] for part in global_batch(5))
    features = [normalize(tower(part), dim=-1) for tower, part in zip(towers, (images, texts), strict=True)]
    loss = build_loss("siglip", bias_init=-2.0, mask_repeats=False).double()
    if whose == "ours":
        loss(*features, image_ids, text_ids).loss.backward()
    else:
        theirs = load_open_clips_losses().SigLipLoss(rank=rank, world_size=world_size)
        theirs(*features, loss.logit_scale.exp(), loss.logit_bias).backward()
    gradients = [tower.weight.grad for tower in towers]
    learned = [parameter.grad for parameter in loss.parameters()]
    for gradient in gradients if whose == "ours" else gradients + learned:
        if world_size > 1:
            dist.all_reduce(gradient)
            gradient /= world_size
    return gradients + learned


def load_open_clips_losses() -> Any:
    """Import ``open_clip/loss.py`` alone: the package would bring torchvision and timm into every process."""
    package = importlib.util.find_spec("open_clip")
    spec = importlib.util.spec_from_file_location("open_clips_losses", Path(package.origin).with_name("loss.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def take_rounded_step(rank: int, world_size: int) -> dict[str, Tensor]:
    """One step of clip in float32 with bf16 products: the loss, and the gradients of this process's features."""
    share = GLOBAL_BATCH_SIZE // world_size
    images, texts, image_ids, text_ids = (part[rank * share : (rank + 1) * share] for part in global_batch(0))
    x, y = (normalize(part.float(), dim=-1).requires_grad_() for part in (images, texts))
    out = build_loss("clip", products="bf16")(x, y, image_ids, text_ids)
    out.loss.backward()
    return {"loss": out.loss.detach(), "image_gradient": x.grad, "text_gradient": y.grad}


def compute_losses_of_unlike_ranks(rank: int) -> list[float]:
    """Losses of float32 steps in which the ranks' pairs are unlike in alignment, so that rounding shows."""
    loss = build_loss("sogclr", num_images=NUM_IMAGES, num_texts=NUM_TEXTS)
    generator = torch.Generator().manual_seed(rank)
    losses = []
    for _ in range(60):
        images, noise = torch.randn(2, 4, DIM, generator=generator)
        texts = images + (0.1 + 3 * rank) * noise
        ids = torch.arange(4) + 4 * rank
        losses.append(loss(normalize(images, dim=1), normalize(texts, dim=1), ids, ids).loss.item())
    return losses


def count_collectives(rank: int, world_size: int) -> dict[str, list[str]]:
    """The collectives of the forward and of the backward pass of a step of clip, in order."""
    calls: list[str] = []
    names = (ALL_GATHER, "all_to_all_single", "all_reduce", "reduce_scatter_tensor", "broadcast")
    originals = {name: getattr(dist, name) for name in names}

    def counted(name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return originals[name](*args, **kwargs)

        return call

    share = GLOBAL_BATCH_SIZE // world_size
    images, texts, image_ids, text_ids = (part[rank * share : (rank + 1) * share] for part in global_batch(0))
    loss = build_loss("clip").double()
    for name in names:
        setattr(dist, name, counted(name))
    try:
        out = loss(normalize(images, dim=-1).requires_grad_(), normalize(texts, dim=-1), image_ids, text_ids)
        forward = calls.copy()
        out.loss.backward()
    finally:
        for name, original in originals.items():
            setattr(dist, name, original)
    return {"forward": forward, "backward": calls[len(forward) :]}


def join(rank: int, world_size: int, folder: str) -> None:
    """Join a gloo group; ``folder`` is where its processes find each other."""
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous-{world_size}",
        rank=rank,
        world_size=world_size,
        timeout=datetime.timedelta(seconds=120),
    )


def spawn_ranks(run_rank: Callable[..., None], world_sizes: tuple[int, ...], folder: Path) -> dict[Any, dict[Any, Any]]:
    """Results by (number of ranks, rank): the processes are started once and form a group of each size in turn."""
    torch.multiprocessing.spawn(run_rank, args=(world_sizes, str(folder)), nprocs=max(world_sizes))
    return {
        (world_size, rank): torch.load(folder / f"{world_size}-{rank}.pt", weights_only=True)
        for world_size in world_sizes
        for rank in range(world_size)
    }


def run_rank(rank: int, world_sizes: tuple[int, ...], folder: str) -> None:
    """Join a gloo group of each size in turn, train every case in it and leave the results in ``folder``."""
    torch.set_num_threads(1)
    for world_size in world_sizes:
        if rank >= world_size:
            continue
        join(rank, world_size, folder)
        results: dict[str, Any] = {case: train(case, rank, world_size) for case in CASES}
        results["siglip gradients"] = {
            whose: compute_siglip_gradients(whose, rank, world_size) for whose in ("ours", "open_clip")
        }
        results["rounded step"] = take_rounded_step(rank, world_size)
        if world_size > 1:
            results["collectives"] = count_collectives(rank, world_size)
            results["refusals"] = provoke_refusals(rank, world_size)
            results["unlike"] = compute_losses_of_unlike_ranks(rank)
            for case in SWAPPED:
                results["swapped", case] = train(case, world_size - 1 - rank, world_size)
        torch.save(results, Path(folder) / f"{world_size}-{rank}.pt")
        dist.destroy_process_group()
