"""Average the weights over the optimizer steps with exponentially falling weights (EMA).

The average after the optimizer steps ``t = 1, 2, ...``, which give the weights ``w_t``:

    a_0 = w_0        a_t = d_t a_{t-1} + (1 - d_t) w_t
    d_t = decay      or, with the warm-up, min(decay, (1 + t) / (10 + t))

The warm-up is that of TensorFlow's ``ExponentialMovingAverage(num_updates)``: without it, the random initial weights
keep the share ``decay ** t``. ``d_t`` depends on the step alone, so a resumed run needs nothing but the averages.

What is averaged: the trained parameters, and the floating-point buffers that a checkpoint holds, which are the running
statistics of batch norms; their average belongs to the averaged weights, and no pass over the data is needed. Frozen
parameters and integer buffers (counts of batches) are not copied: the averaged model shares them with the trained one.

Every rank averages the tensors that it holds, without communication. Data-parallel ranks hold equal weights, and so
equal averages. Where parameters are sharded, each rank averages its own rows, because the average is elementwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from bimodal_cl.distributed import rank
from bimodal_cl.models import DualEncoder
from bimodal_cl.models.weights.file_names import EMA_FILE
from bimodal_cl.models.weights.state_dict import save_weights


class WeightAverage:
    """The exponential moving average of a model's weights, in float32.

    Args:
        model: as it is trained: on its device and, where that is done, sharded. The average starts from its weights.
        decay: share of the old average in the new one, in (0, 1).
        warmup: begin with a smaller decay, see above.
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool = True) -> None:
        assert 0 < decay < 1, decay
        self.decay, self.warmup = decay, warmup
        self._weights = _averaged_tensors(model)
        self._averages = {name: weight.detach().clone() for name, weight in self._weights.items()}

    @property
    def names(self) -> list[str]:
        """Names of the averaged tensors in the model's ``state_dict``."""
        return list(self._averages)

    def decay_at(self, step: int) -> float:
        """Return ``d_t``.

        Args:
            step: ``t``, 1 after the first optimizer step.
        """
        return min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay

    def update(self, step: int) -> None:
        """Move the averages towards the model's weights.

        Args:
            step: optimizer steps so far, the last one included.
        """
        averages, weights = (list(map(_local, each.values())) for each in (self._averages, self._weights))
        get_ema_multi_avg_fn(self.decay_at(step))(averages, weights, step)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Give the model the averaged weights within the block, and its own back after it, bit for bit.

        So what encodes or gathers the model's weights does the same with the averaged ones. No optimizer step may be
        taken in the block.
        """
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def gather(self) -> dict[str, Tensor]:
        """Return the averages by name, sharded ones put together on the main process's CPU; call it on every rank.

        Other ranks get none of the sharded ones, of which they hold a part only.
        """
        found: dict[str, Tensor] = {}
        for name, average in self._averages.items():
            whole = average.full_tensor() if isinstance(average, DTensor) else average
            if whole is average:
                found[name] = average
            elif rank() == 0:
                found[name] = whole.cpu()
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over saved averages.

        Args:
            tensors: whole tensors, on any device, by their names in the model's ``state_dict``; there may be more.
        """
        for name, average in self._averages.items():
            saved = tensors[name].to(average.device)
            if isinstance(average, DTensor):
                saved = distribute_tensor(saved, average.device_mesh, average.placements)
            average.copy_(saved)

    @torch.no_grad()
    def _swap(self) -> None:
        """Exchange weights and averages, one tensor after another, so that one tensor is all the memory it needs."""
        for name, weight in self._weights.items():
            one, other = _local(weight), _local(self._averages[name])
            kept = one.clone()
            one.copy_(other)
            other.copy_(kept)


def save_with_average(encoder: DualEncoder, averages: Mapping[str, Tensor] | None, folder: Path) -> None:
    """Write a model into a checkpoint's folder and, with averages by name, its averaged weights beside it."""
    encoder.save(folder)
    if averages is not None:
        save_weights(encoder, folder / EMA_FILE, averages)


def _averaged_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the trained parameters and the floating-point persistent buffers; of tied ones, the first name."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        trained = tensor.requires_grad if isinstance(tensor, nn.Parameter) else tensor.is_floating_point()
        if trained:
            assert tensor.dtype == torch.float32, (name, tensor.dtype)  # an exchange with float32 loses nothing
            found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())


def _local(tensor: Tensor) -> Tensor:
    """Return the rows of a sharded tensor that this rank holds, without a graph; any other tensor as it is."""
    return tensor.to_local().detach() if isinstance(tensor, DTensor) else tensor.detach()
