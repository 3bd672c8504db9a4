"""Schedule the batches of a rank, for several epochs of training or one pass of evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bimodal_cl.data.order.plan import EpochPlan, SequentialPlan
from bimodal_cl.errors import UserError


@dataclass(frozen=True)
class ScheduledBatch:
    """The image ids of this rank's part of a global batch, in order.

    Args:
        epoch: the pass over the data that the batch is part of.
        step: number of the global batch in that epoch.
        image_ids: of the rank's rows.
    """

    epoch: int
    step: int
    image_ids: list[int]


class Schedule(Protocol):
    """The batches of a rank: ``schedule(number)`` for each ``number`` in ``[start, stop)``.

    Attributes:
        start, stop: the range of numbers.
        steps: batches of an epoch.
        dropped: images left over at the end of each epoch.
    """

    start: int
    stop: int
    steps: int
    dropped: int

    def __call__(self, number: int) -> ScheduledBatch:
        """Return one batch."""
        ...


class Segments(Protocol):
    """What an epoch draws: a :class:`~bimodal_cl.data.shards.mixture.Mixture`; ``str`` names it in messages."""

    def segments(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return runs of consecutive image ids: first ids and lengths, int64 ``[runs]`` each."""
        ...


class TrainSchedule:
    """A rank's part of every global batch of several epochs, numbered consecutively.

    Args:
        data: the rows that each epoch draws.
        seed: of the run.
        epoch: number of the first epoch.
        num_epochs: number of epochs.
        start_step: the first global batch of the first epoch.
        batch_size: of this rank.
        rank, world_size: this process among the ranks.
        shuffle_window: rows that are permuted together.

    Attributes:
        steps: global batches of an epoch.
        dropped: images left over at the end of each epoch.
        start, stop: the numbers of the batches; ``number = (epoch - first epoch) * steps + step``.

    Raises:
        UserError: as :class:`~bimodal_cl.data.order.plan.EpochPlan`.
    """

    def __init__(
        self,
        data: Segments,
        seed: int,
        epoch: int,
        num_epochs: int,
        start_step: int,
        batch_size: int,
        rank: int,
        world_size: int,
        shuffle_window: int,
    ) -> None:
        self._data, self._seed, self._first_epoch, self._window = data, seed, epoch, shuffle_window
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._epoch, self._plan = epoch, self._build_plan(epoch)
        self.steps, self.dropped = self._plan.steps, self._plan.dropped
        self.start, self.stop = start_step, num_epochs * self.steps

    def __call__(self, number: int) -> ScheduledBatch:
        """Return batch ``number`` of this rank."""
        epoch, step = divmod(number, self.steps)
        epoch += self._first_epoch
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._build_plan(epoch)
        first = self._rank * self._batch_size
        return ScheduledBatch(epoch, step, self._plan.image_ids(step, first, first + self._batch_size).tolist())

    def _build_plan(self, epoch: int) -> EpochPlan:
        first_ids, sizes = self._data.segments(self._seed, epoch)
        global_batch_size = self._batch_size * self._world_size
        try:
            return EpochPlan(sizes, self._seed, epoch, global_batch_size, self._window, first_ids)
        except UserError as error:
            raise UserError(f"{self._data}: {error}") from None


class EvaluationSchedule:
    """A rank's share of one pass in the order of ids.

    Args:
        num_images: images of the data.
        batch_size: of this rank.
        rank, world_size: this process among the ranks.
        start_step: the first batch.

    Attributes:
        steps, start, stop, dropped: as those of :class:`Schedule`; nothing is dropped.
    """

    dropped: int = 0
    stop: int

    def __init__(self, num_images: int, batch_size: int, rank: int, world_size: int, start_step: int) -> None:
        self._plan = SequentialPlan(num_images, batch_size, rank, world_size)
        self.steps = self.stop = self._plan.steps
        self.start = start_step

    def __call__(self, number: int) -> ScheduledBatch:
        """Return batch ``number`` of this rank."""
        return ScheduledBatch(0, number, self._plan.image_ids(number).tolist())
