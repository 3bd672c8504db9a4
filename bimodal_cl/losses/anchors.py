"""What is remembered for every image and every text of the data set, and how repeats in a batch are combined.

A table has one row per id and a few float32 columns (``log_u``, ``tau``, ``tau_grad`` or ``alignment``). They are
buffers, so ``state_dict`` holds them and a resumed run continues with them.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bimodal_cl.distributed import gather_rows


class AnchorTable(nn.Module):
    """Per-anchor state of one modality, the same on every rank.

    Args:
        num_anchors: N, images or texts of the whole data set; ids are 0 .. N-1.
        columns: name and initial value of each column; the columns are attributes of shape ``[N]``.

    Raises:
        ValueError: ``num_anchors`` is not a positive integer.
    """

    def __init__(self, num_anchors: int, **columns: float) -> None:
        super().__init__()
        if num_anchors < 1:
            raise ValueError(f"a per-anchor table needs at least one row, got {num_anchors}")
        self.num_anchors = num_anchors
        self.columns = tuple(columns)
        self._initial = columns
        for name, initial in columns.items():
            self.register_buffer(name, torch.full((num_anchors,), initial, dtype=torch.float32))

    def _apply(self, *args: Any, **kwargs: Any) -> AnchorTable:
        super()._apply(*args, **kwargs)
        for name, initial in self._initial.items():
            widen_exactly_(self.get_buffer(name), initial)
        return self

    def look_up(self, column: str, ids: Int[Tensor, " anchors"]) -> Float[Tensor, "anchors 1"]:
        """Return a column's values for the given ids."""
        return self.get_buffer(column)[ids][:, None]

    def update_(self, ids: Int[Tensor, " anchors"], **columns: Float[Tensor, "anchors 1"]) -> None:
        """Write values for ids, each of which occurs once (see :func:`gather_occurrences`)."""
        for name, values in columns.items():
            self.get_buffer(name)[ids] = values[:, 0].to(self.get_buffer(name).dtype)

    def extra_repr(self) -> str:
        """Show the table's size and columns in the module's repr."""
        return f"num_anchors={self.num_anchors}, columns={self.columns}"


def widen_exactly_(tensor: Tensor, initial: float) -> None:
    """Give float64 entries that still hold float32's rounding of ``initial`` its float64 value, in place.

    ``module.double()`` would otherwise start from 0.0099999998 where 0.01 was asked for.
    """
    if tensor.dtype == torch.float64:
        tensor.masked_fill_(tensor == torch.tensor(initial, dtype=torch.float32).item(), initial)


class Occurrences:
    """The anchors of the global batch grouped by id, so that an id that occurs several times is updated once.

    Grouping sorts by id, and each group is reduced in the order of the global batch, so the result is the same on
    every rank, bit for bit.

    Args:
        local_ids: ids of this process's anchors.
        counted: whether each takes part; an anchor without negatives does not.

    Attributes:
        ids: the distinct ids that take part, ascending.
    """

    def __init__(self, local_ids: Int[Tensor, " anchors"], counted: Tensor | None = None) -> None:
        self._local_ids = local_ids
        ids = gather_rows(local_ids)
        positions = torch.arange(ids.numel(), device=ids.device)
        if counted is not None:
            positions = positions[gather_rows(counted).reshape(-1)]
        ordered, order = ids[positions].sort(stable=True)
        self._order = positions[order]
        self.ids, self._counts = ordered.unique_consecutive(return_counts=True)

    def mean(self, values: Float[Tensor, "anchors 1"]) -> Float[Tensor, "ids 1"]:
        """Mean over an id's occurrences of this process's and all other processes' values."""
        return self._reduce(self._grouped(values), "mean")

    def log_mean_exp(self, values: Float[Tensor, "anchors 1"]) -> Float[Tensor, "ids 1"]:
        """Log of the mean of ``exp(values)`` over an id's occurrences, computed without overflow."""
        grouped = self._grouped(values)
        peak = self._reduce(grouped, "max")
        spread = peak.repeat_interleave(self._counts, dim=0)
        return peak + self._reduce((grouped - spread).exp(), "mean").log()

    def to_local(self, per_id: Float[Tensor, "ids 1"], missing: float) -> Float[Tensor, "anchors 1"]:
        """Hand every local anchor its id's value; ``missing`` for those that do not take part."""
        if self.ids.numel() == 0:
            return per_id.new_full((self._local_ids.numel(), 1), missing)
        place = torch.searchsorted(self.ids, self._local_ids).clamp(max=self.ids.numel() - 1)
        found = (self.ids[place] == self._local_ids)[:, None]
        return torch.where(found, per_id[place], missing)

    def _grouped(self, values: Tensor) -> Tensor:
        return gather_rows(values)[self._order]

    def _reduce(self, grouped: Tensor, reduce: str) -> Tensor:
        if self.ids.numel() == 0:
            return grouped
        return torch.segment_reduce(grouped, reduce, lengths=self._counts, axis=0)
