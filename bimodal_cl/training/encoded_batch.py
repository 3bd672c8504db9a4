"""Encode a step's batch, at once or in micro-batches whose features are contrasted as one batch.

A contrastive loss is not a sum over micro-batches: every pair is a negative of every other pair of the batch. Adding up
the gradients of ``k`` micro-batches, each with a loss of its own, trains with the negatives of one micro-batch. But the
loss ``L`` of the whole batch depends on the towers' parameters only through the features ``f_1 .. f_k`` of the
micro-batches, and each of these on no other micro-batch, so the chain rule gives

    dL/dparameters = sum_m  (df_m/dparameters)^T  dL/df_m

The step follows this formula (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup", arXiv 2101.06983, section 3, GradCache):

1. Encode every micro-batch without a graph and keep ``f_m``: ``batch * dim`` numbers a modality.
2. Compute one loss of all features. Its backward pass gives ``dL/df_m`` and the gradients of the loss's parameters.
3. Encode every micro-batch again, with a graph, start its backward pass from ``dL/df_m``, and free the graph.

The activations of one micro-batch exist at a time, and each micro-batch is encoded twice. What makes this exact:

- **The same features twice.** Before the second pass of a micro-batch, the random state is that of before its first, so
  dropout, patch dropout and stochastic depth take the same draws. Augmentation is part of the batch. Compiled towers
  draw otherwise without a graph than with one, so their first pass builds a graph as well and drops it at once.
- **Batch norm** takes its statistics from the micro-batch, in both passes. The running statistics move in the first
  pass only, so they see each micro-batch once.
- **Ranks.** The loss is such that averaging the gradients over ranks gives the gradient of the global loss. The average
  of sums is the sum of averages, so it is taken once, with the backward pass of the last micro-batch.
- **fp16.** ``accelerator.backward`` scales the loss, so ``dL/df_m`` carries the scale already, and the second pass must
  not scale again: it starts from ``dL/df_m`` as it is. The optimizer unscales the sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bimodal_cl.training.speed.step_parts import FORWARD, TRANSFER, part
from bimodal_cl.training.speed.switches import is_compiled


class EncodedBatch:
    """The features of a process's batch, and the backward pass from their gradients to the towers' parameters.

    Args:
        accelerator: device and data parallelism.
        model: ``(pixels, tokens) -> (image_features, text_features)``, as prepared by the accelerator.
        images: the pixels of the process's batch; a micro-batch is moved to the device when it is encoded.
        tokens: of the texts, likewise.
        num_micro_batches: how many parts are encoded one after another, a divisor of ``batch``. With 1 the batch is
            encoded once, and the loss's backward pass goes through the towers.
        revocable: keep the batch norms' running statistics of before, for :meth:`revoke`.

    Attributes:
        image_features, text_features: ``[batch, dim]``, in the order of the batch, for the loss.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        images: UInt8[Tensor, "batch 3 height width"] | Float[Tensor, "batch width"],
        tokens: Int64[Tensor, "batch tokens"] | Float[Tensor, "batch width"],
        num_micro_batches: int = 1,
        revocable: bool = False,
    ) -> None:
        assert len(images) % num_micro_batches == 0, (len(images), num_micro_batches)
        self._statistics: list[tuple[Tensor, Tensor]] = []
        if revocable:
            buffers = (buffer for norm in find_batch_norms(model) for buffer in norm.buffers(recurse=False))
            self._statistics = [(buffer, buffer.clone()) for buffer in buffers]
        self._accelerator, self._model = accelerator, model
        self.image_features: Float[Tensor, "batch dim"]
        self.text_features: Float[Tensor, "batch dim"]
        self._micro_batches: list[tuple[Tensor, Tensor]] = []
        if num_micro_batches == 1:
            self.image_features, self.text_features = self._encode(images, tokens)
            return
        size = len(images) // num_micro_batches
        self._micro_batches = list(zip(images.split(size), tokens.split(size), strict=True))
        self._random_states = []
        features = []
        compiled = is_compiled(model)
        with torch.set_grad_enabled(compiled), accelerator.no_sync(model) if compiled else nullcontext():
            for micro_batch in self._micro_batches:
                self._random_states.append(_read_random_state(accelerator.device))
                features.append([part.detach() for part in self._encode(*micro_batch)])
        self.image_features, self.text_features = (
            torch.cat(part).requires_grad_() for part in zip(*features, strict=True)
        )

    def revoke(self) -> None:
        """Give the batch norms the running statistics of before, for a batch that no step is to take anything of."""
        for buffer, before in self._statistics:
            buffer.copy_(before)

    def backward(self) -> None:
        """Add the parameters' gradients, averaged over ranks; call it after the loss's backward pass."""
        if not self._micro_batches:
            return  # the loss's backward pass went through the towers
        image_gradient, text_gradient = self.image_features.grad, self.text_features.grad
        assert image_gradient is not None and text_gradient is not None, "the loss's backward pass comes first"
        size = len(self._micro_batches[0][0])
        gradients = zip(image_gradient.split(size), text_gradient.split(size), strict=True)
        device, last = self._accelerator.device, self._micro_batches[-1]
        with _random_state_kept(device), _running_statistics_kept(self._model):
            for micro_batch, state, given in zip(self._micro_batches, self._random_states, gradients, strict=True):
                with nullcontext() if micro_batch is last else self._accelerator.no_sync(self._model):
                    _set_random_state(device, state)
                    features = self._encode(*micro_batch)
                    trained = [number for number in (0, 1) if features[number].requires_grad]  # a tower may be frozen
                    torch.autograd.backward([features[n] for n in trained], [given[n] for n in trained])

    def _encode(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        device = self._accelerator.device
        with part(TRANSFER):
            layout = torch.channels_last if images.ndim == 4 else torch.preserve_format  # encoded features have two
            images = images.to(device, non_blocking=True, memory_format=layout)
            tokens = tokens.to(device, non_blocking=True)
        with part(FORWARD):
            return self._model(images, tokens)


def _generators(device: torch.device) -> list[Any]:
    """Return the modules whose global generators a tower may draw from: patch dropout draws on the CPU everywhere."""
    return [torch.random] if device.type == "cpu" else [torch.random, torch.get_device_module(device)]


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed the global generators that a tower may draw from, as ``torch.manual_seed`` does.

    That also formats the stack for each kind of device that it finds unused, 1 ms a step where there is no GPU.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def _read_random_state(device: torch.device) -> list[Tensor]:
    return [generator.get_rng_state() for generator in _generators(device)]


def _set_random_state(device: torch.device, states: Sequence[Tensor]) -> None:
    for generator, state in zip(_generators(device), states, strict=True):
        generator.set_rng_state(state)


@contextmanager
def _random_state_kept(device: torch.device) -> Iterator[None]:
    """Leave the random state as it was before."""
    before = _read_random_state(device)
    try:
        yield
    finally:
        _set_random_state(device, before)


@contextmanager
def _running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """Let batch norms in train mode normalize as they do, without moving their running statistics."""
    norms = [norm for norm in find_batch_norms(model) if norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def find_batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms that normalize by the statistics of the batch: those in train mode."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
