"""Compute the order of an epoch's samples as a pure function of integers, so that resuming needs no replay.

``EpochPlan`` builds the order of training as follows:

1. The shards are permuted and their rows concatenated, and this sequence is rotated by a random number of rows.
2. Its first ``steps * global_batch_size`` rows are used; the rest, less than one batch, is dropped. Both draws change
   with the epoch, so different rows are dropped, even of a single shard.
3. It is cut into equal contiguous *lanes*, numbered at random. Their number is the largest power of two up to 64 that
   divides the global batch size.
4. Each lane is cut into windows of at most ``shuffle_window`` rows, at borders that change with the epoch, and the
   rows of a window are permuted.
5. Global batch ``t`` is the next ``global_batch_size / lanes`` rows of every lane: of lanes 0 to 7 in turn, then of
   lanes 8 to 15 in turn, and so on.

A data set of at most ``shuffle_window`` images is one window: all its rows are permuted and cut into batches.

The order does not depend on ranks and workers. Rank ``r`` of ``W`` takes rows ``[r B/W, (r+1) B/W)`` of each global
batch of ``B`` rows, and a worker takes whole batches, so the global batches are the same for any number of either.
Lanes let each batch sample from the whole data set, while on 8 or more ranks a rank reads only an eighth of it in an
epoch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bimodal_cl.data.order.draws import Purpose, draw_below, draw_permutation
from bimodal_cl.errors import UserError

MAX_LANES = 64
LANES_IN_TURN = 8
SHUFFLE_WINDOW = 8192


def count_lanes(global_batch_size: int) -> int:
    """Return the largest power of two up to 64 that divides the global batch size."""
    return min(global_batch_size & -global_batch_size, MAX_LANES)


class EpochPlan:
    """The images of every global batch of one training epoch, by row.

    Memory: 8 bytes per row of the current window of each lane in use (4 MiB for 64 lanes of 8,192 rows), or of the
    whole data set if that is one window; plus 32 bytes per shard.

    Args:
        shard_sizes: images of each shard, in the manifest's order.
        seed: of the run, >= 0.
        epoch: number of the epoch, >= 0.
        global_batch_size: pairs of one step on all ranks together, >= 1.
        shuffle_window: rows that are permuted together, >= 1; with 1 only shards are permuted.
        first_ids: image id of each shard's first row, int64 ``[shards]``; None: ids are consecutive over the shards.
            With it, the "shards" may be any runs of consecutive ids, such as those of
            :meth:`~bimodal_cl.data.shards.mixture.Mixture.segments`.

    Attributes:
        num_images: sum of ``shard_sizes``.
        steps: whole global batches of the epoch, at least 1.
        dropped: images left over, ``num_images - steps * global_batch_size``.
        lanes: number of lanes.

    Raises:
        UserError: a number is out of range, or the data set does not fill one global batch.
    """

    def __init__(
        self,
        shard_sizes: Sequence[int] | np.ndarray,
        seed: int,
        epoch: int,
        global_batch_size: int,
        shuffle_window: int = SHUFFLE_WINDOW,
        first_ids: np.ndarray | None = None,
    ) -> None:
        sizes = np.asarray(shard_sizes, dtype=np.int64).reshape(-1)
        for name, value, least in (
            ("smallest of shard_sizes", int(sizes.min(initial=0)), 0),
            ("seed", seed, 0),
            ("epoch", epoch, 0),
            ("global_batch_size", global_batch_size, 1),
            ("shuffle_window", shuffle_window, 1),
        ):
            if value < least:
                raise UserError(f"{name} must be at least {least}, got {value}")
        self.num_images = int(sizes.sum())
        self.global_batch_size = global_batch_size
        self.steps, self.dropped = divmod(self.num_images, global_batch_size)
        if self.steps == 0:
            raise UserError(
                f"the data set's {self.num_images} images do not fill one global batch of {global_batch_size}; "
                "use a smaller batch or fewer ranks"
            )
        self.lanes = count_lanes(global_batch_size)
        self.shuffle_window = shuffle_window
        self._key = (seed, epoch)
        self._lane_length = self.steps * global_batch_size // self.lanes
        self._order = draw_permutation(len(sizes), Purpose.SHARDS, seed, epoch)
        earlier = np.cumsum(sizes) - sizes
        first_ids = earlier if first_ids is None else first_ids
        self._first_id = first_ids[self._order]
        self._starts = np.concatenate([[0], np.cumsum(sizes[self._order])])
        self._lane_order = draw_permutation(self.lanes, Purpose.LANES, seed, epoch)
        self._turn = int(draw_below(self.num_images, Purpose.ROTATION, seed, epoch)[0])
        self._borders = draw_below(shuffle_window, Purpose.WINDOW_BORDER, seed, epoch, np.arange(self.lanes))
        self._windows: dict[int, tuple[int, np.ndarray]] = {}
        self._whole: np.ndarray | None = None
        if self.num_images <= shuffle_window:
            ids = np.repeat(first_ids - earlier, sizes) + np.arange(self.num_images)
            self._whole = ids[draw_permutation(self.num_images, Purpose.WINDOW, seed, epoch)]

    def image_ids(self, step: int, first_row: int = 0, last_row: int | None = None) -> np.ndarray:
        """Return the image ids in rows ``[first_row, last_row)`` of global batch ``step``, int64.

        This takes microseconds per row for any ``step``, since nothing before it is computed.

        Raises:
            UserError: ``step`` is outside ``[0, steps)`` or the rows outside the global batch.
        """
        size = self.global_batch_size
        last_row = size if last_row is None else last_row
        if not 0 <= step < self.steps:
            raise UserError(f"step {step} is outside [0, {self.steps})")
        if not 0 <= first_row <= last_row <= size:
            raise UserError(f"rows [{first_row}, {last_row}) are outside the global batch of {size}")
        if self._whole is not None:
            return self._whole[step * size + first_row : step * size + last_row]
        in_turn = min(self.lanes, LANES_IN_TURN)
        rows = np.arange(first_row, last_row)
        group, inside = np.divmod(rows, size // self.lanes * in_turn)
        sample, lanes = np.divmod(inside, in_turn)
        lanes += group * in_turn
        positions = np.empty_like(rows)
        for lane in np.unique(lanes).tolist():
            here = lanes == lane
            # The requested rows of a lane are consecutive samples of it.
            begin = step * (size // self.lanes) + int(sample[here][0])
            positions[here] = self._lane_positions(lane, begin, begin + int(here.sum()))
        return self._ids_at(positions)

    def _lane_positions(self, lane: int, begin: int, end: int) -> np.ndarray:
        """Return the sequence positions of a lane's samples ``[begin, end)``, shuffled inside their windows."""
        border = int(self._borders[lane])
        parts = []
        while begin < end:
            window = (begin + border) // self.shuffle_window
            start, permutation = self._window(lane, window)
            stop = min(end, start + len(permutation))
            parts.append(permutation[begin - start : stop - start] + start)
            begin = stop
        return np.concatenate(parts) + self._lane_order[lane] * self._lane_length

    def _window(self, lane: int, window: int) -> tuple[int, np.ndarray]:
        """Return where a window begins in its lane, and its permutation; the latest of each lane is cached."""
        start = max(window * self.shuffle_window - int(self._borders[lane]), 0)
        kept = self._windows.get(lane)
        if kept is None or kept[0] != window:
            end = min((window + 1) * self.shuffle_window - int(self._borders[lane]), self._lane_length)
            kept = (window, draw_permutation(end - start, Purpose.WINDOW, *self._key, lane, window))
            self._windows[lane] = kept
        return start, kept[1]

    def _ids_at(self, positions: np.ndarray) -> np.ndarray:
        positions = (positions + self._turn) % self.num_images
        shards = np.searchsorted(self._starts, positions, side="right") - 1
        return self._first_id[shards] + (positions - self._starts[shards])


class SequentialPlan:
    """The order of evaluation: every image once, in the order of ids; nothing is dropped, padded or repeated.

    Rank ``r`` of ``W`` takes the contiguous share ``[N r // W, N (r+1) // W)``. Shares of ranks differ by at most
    one image, and so do their numbers of batches; the last batch may be short.

    Args:
        num_images: images of the data set.
        batch_size: of this rank, >= 1.
        rank, world_size: this process among the ranks.

    Attributes:
        steps: batches of this rank.
        dropped: 0.
    """

    dropped = 0

    def __init__(self, num_images: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self._batch_size = batch_size
        self._first = num_images * rank // world_size
        self._last = num_images * (rank + 1) // world_size
        self.steps = -(-(self._last - self._first) // batch_size)

    def image_ids(self, step: int) -> np.ndarray:
        """Return the image ids of this rank's batch ``step``, int64.

        Raises:
            UserError: ``step`` is outside ``[0, steps)``.
        """
        if not 0 <= step < self.steps:
            raise UserError(f"step {step} is outside [0, {self.steps})")
        first = self._first + step * self._batch_size
        return np.arange(first, min(first + self._batch_size, self._last), dtype=np.int64)
