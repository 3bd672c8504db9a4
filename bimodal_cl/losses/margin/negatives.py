"""Find the in-batch negatives of every anchor, and mask all other pairs of a tile."""

from __future__ import annotations

import bisect
import dataclasses
import functools

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bimodal_cl.distributed import gather_rows, rank

# The similarity of a pair that is not a negative: finite, so that 0 * MASKED is 0 and not NaN.
MASKED = -1e30


@dataclasses.dataclass(frozen=True)
class Negatives:
    """The in-batch negatives of the global batch. The relation is symmetric, so both directions share it.

    Attributes:
        image_group: equal numbers stand for equal image ids.
        text_group: equal numbers stand for equal text ids.
        num_negatives: ``n_i`` of every pair of the global batch.
        own: this process's rows of the global batch.
    """

    image_group: Int[Tensor, " candidates"]
    text_group: Int[Tensor, " candidates"]
    num_negatives: Int[Tensor, "candidates 1"]
    own: slice

    @classmethod
    def gather(cls, image_ids: Tensor, text_ids: Tensor, mask_repeats: bool) -> Negatives:
        """Find the negatives in the global batch from this process's ids.

        Without ``mask_repeats`` every other pair is a negative. One collective; the host does not wait for
        the device.
        """
        batch_size = image_ids.shape[0]
        own = slice(rank() * batch_size, (rank() + 1) * batch_size)
        ids = gather_rows(torch.stack([image_ids, text_ids], dim=1))
        num_pairs = ids.shape[0]
        if not mask_repeats:
            everyone = torch.arange(num_pairs, device=ids.device)
            return cls(everyone, everyone, torch.full_like(everyone, num_pairs - 1)[:, None], own)
        return cls.of_global_batch(ids[:, 0], ids[:, 1], own)

    @classmethod
    def of_global_batch(cls, image_ids: Int[Tensor, " candidates"], text_ids: Tensor, own: slice) -> Negatives:
        """Find the negatives from the ids of the whole global batch."""
        num_pairs = image_ids.shape[0]
        image_group, image_count = _group(image_ids)
        text_group, text_count = _group(text_ids)
        _, both_count = _group(image_group * num_pairs + text_group)
        excluded = image_count + text_count - both_count
        return cls(image_group, text_group, (num_pairs - excluded)[:, None], own)

    @property
    def of_own_anchors(self) -> Int[Tensor, "anchors 1"]:
        """``n_i`` of this process's pairs."""
        return self.num_negatives[self.own]

    @property
    def all_rows(self) -> slice:
        """All rows of the global batch."""
        return slice(0, len(self.num_negatives))

    def mask_(self, sims: Float[Tensor, "rows columns"], rows: slice, columns: slice) -> None:
        """Set the similarities of pairs that are not negatives to ``MASKED``, in place.

        Where ids occur once, that is a piece of the diagonal. Ids are compared only where rows with repeats meet
        columns with repeats, so the cost follows their number.
        """
        first, last = max(rows.start, columns.start), min(rows.stop, columns.stop)
        if first < last:
            sims[first - rows.start : last - rows.start, first - columns.start : last - columns.start].fill_diagonal_(
                MASKED
            )
        row, column = self._repeated_in(rows), self._repeated_in(columns)
        if len(row) and len(column):
            same = self.image_group[row, None] == self.image_group[column]
            same |= self.text_group[row, None] == self.text_group[column]
            i, j = same.nonzero(as_tuple=True)
            sims[row[i] - rows.start, column[j] - columns.start] = MASKED

    @functools.cached_property
    def _repeated(self) -> tuple[Tensor, list[int]]:
        """Positions of the pairs with repeats, on the device and on the host (which waits for the device)."""
        positions = (self.num_negatives[:, 0] < len(self.num_negatives) - 1).nonzero()[:, 0]
        return positions, positions.tolist()

    def _repeated_in(self, whole: slice) -> Tensor:
        positions, on_host = self._repeated
        return positions[bisect.bisect_left(on_host, whole.start) : bisect.bisect_left(on_host, whole.stop)]


def _group(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Number the distinct ids (with gaps) and count each one's occurrences, both ``[candidates]``.

    Like ``unique``, but the shape of the result does not depend on the values, so the host need not wait for it.
    """
    ids = ids.contiguous()
    ordered = ids.sort().values
    first = torch.searchsorted(ordered, ids)
    return first, torch.searchsorted(ordered, ids, right=True) - first
