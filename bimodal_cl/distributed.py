"""The process's place among the ranks, and the collectives the losses need, each with its gradient stated.

Nothing here needs Accelerate: a plain ``torch.distributed.init_process_group`` is enough, and without one every
function is the one-process case.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from bimodal_cl.errors import RunStopped

T = TypeVar("T")

ALL_GATHER = "all_gather_single" if hasattr(dist, "all_gather_single") else "all_gather_into_tensor"  # before 2.14


# The errors of gloo and NCCL where another rank is gone, and where it does not answer.
_LOST_PEER = re.compile(r"[Cc]onnection (closed|reset|refused)|remote process (exited|has terminated)|peer closed")
_SILENT_PEER = re.compile(r"[Tt]imed out|[Tt]imeout")


def explain_lost_peer(error: RuntimeError) -> str | None:
    """Return what a collective's error says about another rank: that it has ended, or does not answer; else None."""
    if world_size() == 1 or isinstance(error, RunStopped):  # which says what it is about
        return None
    if _LOST_PEER.search(str(error)):
        return "another process has ended; its message says why"
    if _SILENT_PEER.search(str(error)):
        return "another process did not answer in time (train.timeout_seconds); it hangs, or is much slower"
    return None


def rank() -> int:
    """This process's rank; 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def share_of_rank(count: int) -> tuple[int, int]:
    """Return this rank's share of ``count`` items in order, ``[first, last)``: shares differ by at most one."""
    return count * rank() // world_size(), count * (rank() + 1) // world_size()


def gather_rows(local: Tensor) -> Tensor:
    """Concatenate every rank's rows in rank order: ``[batch, ...] -> [batch * world_size, ...]``.

    Gradient: none. The result is detached; whoever needs a gradient through a gathered value computes it from its
    own rows and columns (see ``losses/margin/__init__.py``). Every rank must bring the same number of rows.
    """
    local = local.detach().contiguous()
    if world_size() == 1:
        return local
    gathered = local.new_empty((world_size() * local.shape[0], *local.shape[1:]))
    getattr(dist, ALL_GATHER)(gathered, local)
    return gathered


def gather_objects(local: T) -> list[T]:
    """Return every rank's object, in rank order; they are pickled, so tensors had better come another way.

    The process group must be one for the CPU (gloo).
    """
    if world_size() == 1:
        return [local]
    everyone: list[Any] = [None] * world_size()
    dist.all_gather_object(everyone, local)
    return everyone


def gather_uneven_rows(local: Tensor | None) -> list[Tensor]:
    """Return every rank's rows ``[rows, dim]`` on the CPU, in rank order; a rank without any (None) has zero rows.

    Gradient: none. The process group must be one for the CPU (gloo).
    """
    if world_size() == 1:
        return [] if local is None else [local.cpu()]
    shapes = gather_objects(None if local is None else tuple(local.shape))
    known = [shape for shape in shapes if shape is not None]
    if not known:
        return []
    padded = torch.zeros(max(rows for rows, _ in known), known[0][1])
    if local is not None:
        padded[: len(local)] = local.cpu()
    everyone = gather_rows(padded).view(world_size(), *padded.shape)
    return [rows[: shape[0] if shape else 0] for rows, shape in zip(everyone, shapes, strict=True)]


def exchange_rows(rows: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
    """Send rows to other ranks and get theirs (all-to-all): ``[sum(sent), ...] -> [sum(received), ...]``.

    Gradient: none (the result is detached). Rank ``r`` gets the next ``sent[r]`` rows in turn; the result holds the
    rows from rank 0, then those from rank 1, and so on, ``received[r]`` from each. What one rank sends another must
    expect: ``sent[r]`` here is ``received`` of this rank on rank ``r``.
    """
    rows = rows.detach().contiguous()
    if world_size() == 1:
        return rows
    arrived = rows.new_empty((sum(received), *rows.shape[1:]))
    dist.all_to_all_single(arrived, rows, list(received), list(sent))
    return arrived


def reduce_sum(values: Tensor) -> Tensor:
    """Sum over ranks, equal on all of them. Gradient: none (the result is detached)."""
    total = values.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total, op=dist.ReduceOp.SUM)
    return total


def reduce_max(values: Tensor) -> Tensor:
    """Elementwise maximum over ranks, equal on all of them. Gradient: none (the result is detached)."""
    largest = values.detach().clone()
    if world_size() > 1:
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


class _ReplicatedParameter(torch.autograd.Function):
    """Identity forward; backward averages the gradient over ranks."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor) -> Tensor:
        return parameter.view_as(parameter)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return reduce_sum(gradient) / world_size()


def replicated_parameter(parameter: Tensor) -> Tensor:
    """Use a parameter that every rank holds and that no DistributedDataParallel wrapper looks after.

    Gradient: the mean over ranks, as data-parallel averaging would give it, so a learned temperature stays equal
    on all ranks whether or not the loss module is wrapped.
    """
    return _ReplicatedParameter.apply(parameter)
