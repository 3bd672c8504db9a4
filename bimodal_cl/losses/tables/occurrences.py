"""Group the anchors of a step by id, so that repeats in the global batch are combined and every row is updated once.

A step does no work that grows with the table: the distinct ids of the global batch are found by a sort, and only their
rows are read and written.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bimodal_cl.distributed import exchange_rows, gather_rows, rank, world_size
from bimodal_cl.losses.tables.anchors import AnchorTable

_NO_ID = torch.iinfo(torch.int64).max


@dataclasses.dataclass(frozen=True)
class _Groups:
    """How the anchors of the global batch are grouped. Values sent to the process that keeps their rows "arrive" there.

    Attributes:
        ids: the distinct ids that take part and whose rows are kept here, ascending.
        counts: how often each of them occurs.
        order: the arrivals that take part, sorted by id and within an id in the order of the global batch.
        asked_ids: the ids that this process is asked for: its own anchors', or those that arrive from all ranks.
        by_owner: this process's anchors sorted by the rank that keeps their row.
        sent: how many of them go to each rank.
        received: how many arrive from each rank.
    """

    ids: Int[Tensor, " ids"]
    counts: Int[Tensor, " ids"]
    order: Int[Tensor, " counted"]
    asked_ids: Int[Tensor, " asked"]
    by_owner: Int[Tensor, " anchors"] | None = None
    sent: tuple[int, ...] = ()
    received: tuple[int, ...] = ()


class Occurrences:
    """The anchors of the global batch grouped by id, so that an id that occurs several times is updated once.

    The rows of a sharded table are each updated by the one rank that keeps them, those of a replicated table by every
    rank alike. Grouping sorts by id, and each group is reduced in the order of the global batch, so the result is the
    same for both kinds and on every rank, bit for bit.

    Nothing is exchanged before the groups are needed; then all ranks must need them. The exchanges: one all-gather of
    ids (from which each rank knows who asks whom for how many rows); one exchange of values for each :meth:`mean`,
    :meth:`log_mean_exp`, :meth:`to_local` and :meth:`gather`: all-gather (replicated; the last two need
    none) or all-to-all (sharded). One synchronization with the device in all.

    Args:
        local_ids: ids of this process's anchors.
        counted: whether each takes part; an anchor without negatives does not. None: all do.
        table: the table whose rows the ids name; None stands for a replicated one.
    """

    def __init__(
        self, local_ids: Int[Tensor, " anchors"], counted: Tensor | None = None, table: AnchorTable | None = None
    ) -> None:
        self._local_ids, self._counted, self._table = local_ids, counted, table

    def gather(self, column: str) -> Float[Tensor, "anchors 1"]:
        """Look up a column of the table for this process's anchors, whichever rank keeps their rows.

        A collective where the table is sharded: the owners look up what each rank asks for and send it (all-to-all).
        """
        assert self._table is not None
        return self._to_anchors(self._table.look_up(column, self._groups.asked_ids))

    def look_up(self, column: str) -> Float[Tensor, "ids 1"]:
        """Return a column of the table for :attr:`ids`, whose rows this process keeps."""
        assert self._table is not None
        return self._table.look_up(column, self.ids)

    @property
    def ids(self) -> Int[Tensor, " ids"]:
        """The distinct ids that take part and whose rows this process keeps, ascending."""
        return self._groups.ids

    def mean(self, values: Float[Tensor, "anchors 1"]) -> Float[Tensor, "ids 1"]:
        """Mean over an id's occurrences of this process's and all other processes' values."""
        return self._reduce(self._grouped(values), "mean")

    def log_mean_exp(self, values: Float[Tensor, "anchors 1"]) -> Float[Tensor, "ids 1"]:
        """Log of the mean of ``exp(values)`` over an id's occurrences, computed without overflow."""
        grouped = self._grouped(values)
        peak = self._reduce(grouped, "max")
        spread = peak.repeat_interleave(self._groups.counts, dim=0, output_size=len(grouped))
        return peak + self._reduce((grouped - spread).exp(), "mean").log()

    def to_local(self, per_id: Float[Tensor, "ids 1"], missing: float) -> Float[Tensor, "anchors 1"]:
        """Return the value of every local anchor's id; ``missing`` for those that do not take part."""
        ids, asked = self.ids, self._groups.asked_ids
        if ids.numel() == 0:
            return self._to_anchors(per_id.new_full((asked.numel(), 1), missing))
        place = torch.searchsorted(ids, asked).clamp(max=ids.numel() - 1)
        found = (ids[place] == asked)[:, None]
        return self._to_anchors(torch.where(found, per_id[place], missing))

    def _to_anchors(self, answers: Float[Tensor, "asked 1"]) -> Float[Tensor, "anchors 1"]:
        """Send values for the ids that this process is asked for to the anchors that asked."""
        groups = self._groups
        if groups.by_owner is None:
            return answers
        result = answers.new_empty(self._local_ids.numel(), 1)
        result[groups.by_owner] = exchange_rows(answers, groups.received, groups.sent)
        return result

    def _grouped(self, values: Tensor) -> Tensor:
        groups = self._groups
        if groups.by_owner is None:
            return gather_rows(values)[groups.order]
        return exchange_rows(values[groups.by_owner], groups.sent, groups.received)[groups.order]

    def _reduce(self, grouped: Tensor, reduce: str) -> Tensor:
        if self.ids.numel() == 0:
            return grouped
        counts = self._groups.counts  # `unsafe`: do not read them back from the device to check their sum
        return torch.segment_reduce(grouped, reduce, lengths=counts, axis=0, unsafe=True)

    @cached_property
    def _groups(self) -> _Groups:
        num_shards = self._count_shards()
        mine = self._local_ids
        counted = torch.ones_like(mine) if self._counted is None else self._counted.reshape(-1).to(mine)
        ids, counts = gather_rows(torch.stack([mine, counted], dim=1)).unbind(dim=1)
        takes_part, splits = counts == 1, ids.new_empty(0)
        if num_shards > 1:
            owner = ids % num_shards
            kept = owner == rank()
            takes_part &= kept
            own_owner = owner.view(num_shards, -1)[rank()]
            sent = (own_owner == torch.arange(num_shards, device=ids.device)[:, None]).sum(dim=1)
            splits = torch.cat([sent, kept.view(num_shards, -1).sum(dim=1)])
        ordered, order = torch.where(takes_part, ids, _NO_ID).sort(stable=True)
        first = torch.ones_like(takes_part)
        first[1:] = ordered[1:] != ordered[:-1]
        sizes = torch.stack([(first & (ordered != _NO_ID)).sum(), takes_part.sum()])
        num_ids, num_counted, *numbers = torch.cat([sizes, splits]).tolist()  # the one synchronization
        starts = torch.searchsorted(first.cumsum(0), torch.arange(1, num_ids + 2, device=ids.device))
        distinct, counts, order = ordered[starts[:-1]], starts.diff(), order[:num_counted]
        if num_shards == 1:
            return _Groups(distinct, counts, order, mine)
        arrival = kept.cumsum(0) - 1
        asked = ids[kept.to(torch.int8).argsort(descending=True, stable=True)[: sum(numbers[num_shards:])]]
        by_owner = own_owner.argsort(stable=True)
        sent_to, received_from = tuple(numbers[:num_shards]), tuple(numbers[num_shards:])
        return _Groups(distinct, counts, arrival[order], asked, by_owner, sent_to, received_from)

    def _count_shards(self) -> int:
        table = self._table
        if table is None or table.tables == "replicated":
            return 1
        if table.num_shards != world_size():
            raise ValueError(
                f"a table with tables='sharded' was built on {table.num_shards} process(es) and is used on "
                f"{world_size()}: build the loss after init_process_group"
            )
        return table.num_shards
