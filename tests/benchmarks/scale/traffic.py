"""Count the bytes of every collective while code runs, those of DistributedDataParallel and FSDP2 included."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# PyTorch's operations for collectives: our name, and which of the tensors counts (the result, or what a rank brings).
_KINDS = {
    "c10d::_allgather_base_": ("all_gather", 0),
    "c10d::alltoall_base_": ("all_to_all", 0),
    "c10d::allreduce_": ("all_reduce", 0),
    "c10d::_reduce_scatter_base_": ("reduce_scatter", 1),
    "c10d::broadcast_": ("broadcast", 0),
}


class Traffic(TorchDispatchMode):
    """While it is entered, counts collectives by kind and bytes.

    Attributes:
        counts: how often each (kind, bytes) occurred.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[str, int]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name.startswith(("c10d::", "_c10d_functional::")):
            kind, place = _KINDS[name]
            tensor = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)][place]
            self.counts[kind, tensor.numel() * tensor.element_size()] += 1
        return func(*args, **(kwargs or {}))

    def bytes_of(self, kind: str) -> int:
        """Return the bytes of all collectives of a kind."""
        return sum(size * times for (of_kind, size), times in self.counts.items() if of_kind == kind)
