"""Which batches a rank has: of training, over as many epochs as it lasts, or of one pass of evaluation."""

from __future__ import annotations

from bimodal_cl.data.order.plan import EpochPlan, SequentialPlan
from bimodal_cl.data.pipeline.stages import PlannedBatch
from bimodal_cl.data.shards.mixture import Mixture
from bimodal_cl.errors import UserError


class TrainSchedule:
    """A rank's part of every global batch of several epochs, numbered through.

    Args:
        mixture: the data.
        seed: of the run.
        epoch: the first.
        num_epochs: how many.
        start_step: the first global batch of the first epoch.
        batch_size: of this rank.
        rank, world_size: this process among the ranks.
        shuffle_window: rows that are permuted together.

    Attributes:
        steps: global batches of an epoch.
        dropped: images left over at each epoch's end.
        start, stop: the numbers of the batches; ``number = (epoch - first epoch) * steps + step``.

    Raises:
        UserError: as :class:`~bimodal_cl.data.order.plan.EpochPlan`.
    """

    def __init__(
        self,
        mixture: Mixture,
        seed: int,
        epoch: int,
        num_epochs: int,
        start_step: int,
        batch_size: int,
        rank: int,
        world_size: int,
        shuffle_window: int,
    ) -> None:
        self._mixture, self._seed, self._first_epoch, self._window = mixture, seed, epoch, shuffle_window
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._epoch, self._plan = epoch, self._build_plan(epoch)
        self.steps, self.dropped = self._plan.steps, self._plan.dropped
        self.start, self.stop = start_step, num_epochs * self.steps

    def __call__(self, number: int) -> PlannedBatch:
        """Return batch ``number`` of this rank."""
        epoch, step = divmod(number, self.steps)
        epoch += self._first_epoch
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._build_plan(epoch)
        first = self._rank * self._batch_size
        return PlannedBatch(epoch, step, self._plan.image_ids(step, first, first + self._batch_size).tolist())

    def _build_plan(self, epoch: int) -> EpochPlan:
        first_ids, sizes = self._mixture.segments(self._seed, epoch)
        global_batch_size = self._batch_size * self._world_size
        try:
            return EpochPlan(sizes, self._seed, epoch, global_batch_size, self._window, first_ids)
        except UserError as error:
            raise UserError(f"{self._mixture}: {error}") from None


class EvaluationSchedule:
    """A rank's share of one pass in the order of ids; see :class:`~bimodal_cl.data.order.plan.SequentialPlan`."""

    dropped = 0
    stop: int

    def __init__(self, num_images: int, batch_size: int, rank: int, world_size: int, start_step: int) -> None:
        self._plan = SequentialPlan(num_images, batch_size, rank, world_size)
        self.steps = self.stop = self._plan.steps
        self.start = start_step

    def __call__(self, number: int) -> PlannedBatch:
        """Return batch ``number`` of this rank."""
        return PlannedBatch(0, number, self._plan.image_ids(number).tolist())
