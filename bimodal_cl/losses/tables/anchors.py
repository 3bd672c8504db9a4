"""Keep per-anchor state: a table with one row for every image, or every text, of the data set.

A table has a few float32 columns (``log_u``, ``tau``, ``tau_grad`` or ``alignment``), which
``state_dict`` holds, so that a resumed run continues with them.

Either every process keeps all rows (``replicated``), or row ``k`` is kept by rank ``k mod W`` alone (``sharded``). A
replicated table is one shard out of one: everything below is written for shards. Which rows a step reads and writes,
and how it asks other ranks for theirs, is in ``occurrences.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bimodal_cl.distributed import gather_rows, rank, world_size

TABLE_KINDS = ("replicated", "sharded")
_CHUNK = 1 << 24  # ids that are gathered at a time when a sharded column is put together: 64 MiB of float32


class AnchorTable(nn.Module):
    """Per-anchor state of one modality.

    The columns are attributes: ``[N]`` in a replicated table; in a sharded one this rank's rows, ids ``rank``,
    ``rank + W``, ``rank + 2 W``, ..., so a rank needs ``4 * ceil(N / W)`` bytes for each column (see :meth:`full`).
    They are not buffers of the module, since DistributedDataParallel would copy rank 0's buffers over all others'
    before every forward pass. ``.to(device)`` and ``.double()`` reach them nevertheless; ``.half()`` and
    ``.bfloat16()`` leave them.

    ``state_dict()`` holds whole columns ``[N]`` whatever the kind, and ``load_state_dict`` takes them, so a state can
    be loaded on any number of ranks and by either kind. For a sharded table ``state_dict()`` is a collective: call it
    on every rank. It puts the columns together on the CPU of each, ``4 * N`` bytes a column; to have them on one rank
    only, see :func:`gather_state`. Loading is not a collective.

    Args:
        num_anchors: N, images or texts of the whole data set; ids are 0 .. N-1.
        tables: ``"replicated"`` or ``"sharded"``; build a sharded table after ``init_process_group``.
        table_device: ``"cpu"`` keeps the rows there wherever the module is moved, for tables that do not fit on the
            device; a step then copies the batch's rows to the device and back. None: on the module's device.
        columns: name and initial value of each column.

    Raises:
        ValueError: ``num_anchors`` is not a positive integer, or an unknown kind or place.
    """

    def __init__(
        self,
        num_anchors: int,
        tables: Literal["replicated", "sharded"] = "replicated",
        table_device: Literal["cpu"] | None = None,
        /,
        **columns: float,
    ) -> None:
        super().__init__()
        if num_anchors < 1:
            raise ValueError(f"a per-anchor table needs at least one row, got {num_anchors}")
        if tables not in TABLE_KINDS:
            raise ValueError(f"tables='{tables}' must be 'replicated' or 'sharded'")
        if table_device not in (None, "cpu"):
            raise ValueError(f"table_device='{table_device}' must be 'cpu', or None for the loss's own device")
        self.num_anchors, self.tables, self.table_device = num_anchors, tables, table_device
        self.num_shards, self.shard = (world_size(), rank()) if tables == "sharded" else (1, 0)
        self.columns = tuple(columns)
        self._initial = columns
        self._state_on: int | None = None  # the rank that puts whole columns together; None: all do
        num_rows = len(range(self.shard, num_anchors, self.num_shards))
        device = torch.get_default_device() if table_device is None else torch.device(table_device)
        self._exchange_device = torch.get_default_device()
        for name, initial in columns.items():
            setattr(self, name, torch.full((num_rows,), initial, dtype=torch.float32, device=device))

    def look_up(self, column: str, ids: Int[Tensor, " anchors"]) -> Float[Tensor, "anchors 1"]:
        """Return a column's values for ids whose rows this process keeps, on the ids' device."""
        return self._column(column).index_select(0, self._rows_of(ids)).to(ids.device)[:, None]

    def update_(self, ids: Int[Tensor, " anchors"], **columns: Float[Tensor, "anchors 1"]) -> None:
        """Write values for ids whose rows this process keeps, each of which occurs once here."""
        rows = self._rows_of(ids)
        for name, values in columns.items():
            column = self._column(name)
            column.index_copy_(0, rows, values[:, 0].to(column))  # a third of the time of `column[rows] = ...`

    def full(self, column: str) -> Float[Tensor, " rows"]:
        """Return a whole column ``[N]``: the column itself, or, of a sharded table, a new tensor on the CPU.

        A collective where the table is sharded: call it on every rank.
        """
        if self.num_shards == 1:
            return self._column(column)
        whole = self._put_together(column, here=True)
        assert whole is not None
        return whole

    def extra_repr(self) -> str:
        """Show the table's size, kind and columns in the module's repr."""
        place = "" if self.table_device is None else f", table_device={self.table_device}"
        return f"num_anchors={self.num_anchors}, tables={self.tables}{place}, columns={self.columns}"

    def _column(self, name: str) -> Tensor:
        column: Tensor = getattr(self, name)
        return column

    def _rows_of(self, ids: Tensor) -> Tensor:
        rows = ids if self.num_shards == 1 else ids // self.num_shards
        return rows if self.table_device is None else rows.to(self.table_device)

    def _put_together(self, column: str, here: bool) -> Tensor | None:
        """Gather a sharded column by chunks of ids; every rank sees each chunk, and keeps it if it is wanted here."""
        mine, most_rows = self._column(column), -(-self.num_anchors // self.num_shards)
        whole = torch.empty(self.num_anchors, dtype=mine.dtype) if here else None
        step = max(1, _CHUNK // self.num_shards)
        for start in range(0, most_rows, step):
            num_rows = min(step, most_rows - start)
            part = mine[start : start + num_rows].to(self._exchange_device)
            part = nn.functional.pad(part, (0, num_rows - part.numel()))  # some ranks have one row less
            by_rank = gather_rows(part).view(self.num_shards, num_rows)
            if whole is not None:
                chunk = whole[start * self.num_shards : (start + num_rows) * self.num_shards]
                chunk.copy_(by_rank.T.reshape(-1)[: chunk.numel()])
        return whole

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AnchorTable:
        super()._apply(fn, recurse)
        for name, initial in self._initial.items():
            column = self._column(name)
            asked = fn(column.new_empty(0))  # the device and type that the column is to have
            self._exchange_device = asked.device
            if self.table_device is None:
                column = column.to(asked.device)
            if asked.dtype not in (torch.float16, torch.bfloat16):
                column = column.to(asked.dtype)
            widen_exactly_(column, initial)
            setattr(self, name, column)
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        here = self._state_on in (None, rank())
        for name in self.columns:
            whole = self._column(name) if self.num_shards == 1 else self._put_together(name, here)
            if here:
                destination[prefix + name] = whole

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        for name in self.columns:
            saved = state_dict.get(prefix + name)
            if saved is None:
                missing_keys.append(prefix + name)
            elif saved.shape != (self.num_anchors,):
                shape = list(saved.shape)
                error_msgs.append(f"{prefix}{name} has shape {shape}, this table needs [{self.num_anchors}]")
            else:
                self._column(name).copy_(saved[self.shard :: self.num_shards])
        known = {prefix + name for name in self.columns}
        unexpected_keys.extend(key for key in state_dict if strict and key.startswith(prefix) and key not in known)


def gather_state(module: nn.Module, destination: int = 0) -> dict[str, Tensor]:
    """Return the module's ``state_dict()`` on one rank, and an empty one on the others.

    A collective where the module has sharded tables: call it on every rank. Their columns are put together on the CPU
    of ``destination`` alone: ``4 * N`` bytes for each column there, about 64 MiB at a time on the others, and
    ``4 * N`` bytes for each column through every rank's network link.
    """
    tables = [part for part in module.modules() if isinstance(part, AnchorTable)]
    try:
        for table in tables:
            table._state_on = destination
        state: dict[str, Tensor] = module.state_dict()
    finally:
        for table in tables:
            table._state_on = None
    return state if rank() == destination else {}


def widen_exactly_(tensor: Tensor, initial: float) -> None:
    """Give float64 entries that still hold float32's rounding of ``initial`` its float64 value, in place.

    ``module.double()`` would otherwise start from 0.0099999998 where 0.01 was asked for.
    """
    if tensor.dtype == torch.float64:
        tensor.masked_fill_(tensor == torch.tensor(initial, dtype=torch.float32).item(), initial)
