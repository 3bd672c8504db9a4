"""Choose the code that sums the tiles: fused Triton kernels on CUDA, PyTorch's operations everywhere else."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import warnings
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from bimodal_cl.losses.margin import torch_kernel as margin_torch
from bimodal_cl.losses.margin.negatives import Negatives
from bimodal_cl.losses.margin.sums import GlobalBatch, Pulls
from bimodal_cl.losses.margin.tiles import Tiling

Kernel = Literal["auto", "torch", "triton"]


def choose_kernel(kernel: Kernel, batch: GlobalBatch) -> ModuleType:
    """Return the module whose ``sum_tiles`` and ``add_gradients_`` are to be used.

    ``"auto"`` takes the Triton kernels on a GPU where they can run, after comparing them with PyTorch there; if they
    differ or fail, one warning says so and PyTorch is used. ``"triton"`` also runs on a CPU, in Triton's
    interpreter, if the environment has ``TRITON_INTERPRET=1``.

    Args:
        kernel: ``"torch"``, ``"triton"`` or ``"auto"``.
        batch: its device and types decide.

    Raises:
        ValueError: another name, or ``"triton"`` where it cannot run; the message says why.
    """
    if kernel not in ("auto", "torch", "triton"):
        raise ValueError(f"kernel={kernel!r} must be one of 'auto', 'torch', 'triton'")
    values = batch.tau_images
    if kernel == "torch" or (kernel == "auto" and not values.is_cuda):
        return margin_torch
    obstacle = find_obstacle_to_triton(values)
    if kernel == "triton" and obstacle:
        raise ValueError(f"kernel='triton' cannot run: {obstacle}")
    if obstacle or (kernel == "auto" and not triton_agrees(values.device, batch.images.dtype)):
        return margin_torch
    return importlib.import_module("bimodal_cl.losses.margin.triton_kernel")


def find_obstacle_to_triton(values: Tensor) -> str | None:
    """Return why the Triton kernels cannot compute values of this type on this device; None if they can."""
    if values.dtype != torch.float32:
        return f"it computes in float32, not in {values.dtype}"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if not values.is_cuda:
        return None if os.environ.get("TRITON_INTERPRET") == "1" else f"it needs a GPU, not {values.device.type}"
    if torch.version.cuda is None:
        return "it needs an NVIDIA GPU"
    capability = torch.cuda.get_device_capability(values.device)
    return None if capability >= (8, 0) else f"it needs compute capability 8.0, not {capability[0]}.{capability[1]}"


@functools.cache
def triton_agrees(device: torch.device, dtype: torch.dtype) -> bool:
    """Compare the Triton kernels with PyTorch's operations on a small batch; warn if they differ or fail.

    Args:
        device: where.
        dtype: the type of the products.
    """
    batch, pulls = _small_batch(device, dtype)
    try:
        triton = importlib.import_module("bimodal_cl.losses.margin.triton_kernel")
        pairs = zip(_compute(triton, batch, pulls), _compute(margin_torch, batch, pulls), strict=True)
        difference = torch.stack([(ours - theirs).abs().max() / theirs.abs().max() for ours, theirs in pairs]).max()
        agree = difference.item() < (0.05 if dtype == torch.bfloat16 else 1e-3)
        problem = None if agree else f"differ from PyTorch by {difference.item():.2g}"
    except Exception as error:  # compilers and drivers raise many types; PyTorch can still compute the loss
        problem = f"fail ({type(error).__name__}: {error})"
    if problem:
        warnings.warn(f"the Triton kernels {problem} on {device}: the losses use PyTorch instead", stacklevel=2)
    return problem is None


def _compute(module: ModuleType, batch: GlobalBatch, pulls: Pulls) -> list[Tensor]:
    everyone, tiling = batch.negatives.all_rows, Tiling(200, kept=False)
    image_sums, text_sums, _ = module.sum_tiles(batch, tiling)
    alone = batch.negatives.num_negatives == 0
    gradients = [torch.zeros_like(features, dtype=torch.float32) for features in (batch.images, batch.texts)]
    module.add_gradients_(batch, pulls, pulls, everyone, everyone, tiling, *gradients)
    return [*image_sums.level_and_mean(everyone, alone), *text_sums.level_and_mean(everyone, alone), *gradients]


def _small_batch(device: torch.device, dtype: torch.dtype) -> tuple[GlobalBatch, Pulls]:
    """300 pairs with repeats, in 80 dimensions: several blocks and tiles, not all of them full."""
    features = normalize(torch.randn(2, 300, 80, generator=torch.Generator().manual_seed(0)), dim=2)
    images, texts = features.to(device, dtype)
    ids = torch.arange(300, device=device)
    tau = torch.linspace(0.05, 0.3, 300, device=device)[:, None]
    negatives = Negatives.of_global_batch(ids // 3, ids // 2, slice(0, 300))
    return GlobalBatch(images, texts, tau, tau.flip(0), negatives), Pulls(tau, tau + 0.2, tau + 1)
