"""The stream of batches of one epoch: webdataset's pipeline over the plan, in worker processes or in this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import torch
import webdataset as wds
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from bimodal_cl.data import stages
from bimodal_cl.data.decode import MAX_PIXELS
from bimodal_cl.data.draws import Purpose, draw_below
from bimodal_cl.data.faults import FaultCounts
from bimodal_cl.data.manifest import Manifest
from bimodal_cl.data.plan import SHUFFLE_WINDOW, EpochPlan, SequentialPlan
from bimodal_cl.data.stages import Batch, Delivery
from bimodal_cl.data.transforms import EvalTransform, TrainTransform
from bimodal_cl.errors import UserError

__all__ = ["Batch", "Stream", "open_stream"]


class Stream:
    """The batches of one epoch on one rank; iterating again gives the same batches again.

    Attributes:
        manifest: of the data set.
        steps: batches of the whole epoch on this rank.
        start_step: the first that is given out; ``len(stream) == steps - start_step``.
        dropped: images left over at the epoch's end, less than one global batch.
        build_pipeline: makes the webdataset pipeline of ``Delivery`` that workers run, stage by stage.
    """

    def __init__(
        self,
        manifest: Manifest,
        plan: EpochPlan | SequentialPlan,
        build_pipeline: Callable[[], wds.DataPipeline],
        start_step: int,
        num_workers: int,
        max_bad_fraction: float,
        pin_memory: bool,
    ) -> None:
        self.manifest = manifest
        self.steps = plan.steps
        self.dropped = plan.dropped
        self.start_step = start_step
        self.build_pipeline = build_pipeline
        self._num_workers = num_workers
        self._max_bad_fraction = max_bad_fraction
        self._pin_memory = pin_memory
        self._counts = FaultCounts()

    def __len__(self) -> int:
        return self.steps - self.start_step

    def report(self) -> FaultCounts:
        """Return the faults of the current, or else the last, iteration so far on this rank."""
        return deepcopy(self._counts)

    def __iter__(self) -> Iterator[Batch]:
        """Give out the batches from ``start_step`` on.

        Raises:
            UserError: a shard is not what the manifest says, or too many samples are faulty; also from a worker.
        """
        self._counts = counts = FaultCounts()
        deliveries = iter(self._build_loader())
        try:
            for delivery in deliveries:
                if delivery.error is not None:
                    raise UserError(delivery.error)
                counts.add(delivery.samples, delivery.faults)
                if delivery.faults:
                    counts.require_few(self._max_bad_fraction, self.manifest.folder, delivery.faults[-1])
                if delivery.batch is not None:
                    yield delivery.batch
        finally:
            del deliveries  # the last reference: workers end now, and not at some later collection

    def _build_loader(self) -> DataLoader[Delivery]:
        return DataLoader(
            self.build_pipeline(),
            batch_size=None,
            num_workers=self._num_workers,
            pin_memory=self._pin_memory and torch.cuda.is_available(),
            # A loader draws a seed for its workers when it starts. From the global generator, that would make what
            # the model draws later depend on how often a run was resumed.
            generator=torch.Generator().manual_seed(0),
        )


def open_stream(
    folder: str | Path | Manifest,
    batch_size: int,
    image_size: int,
    seed: int = 0,
    epoch: int = 0,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    train: bool = True,
    *,
    shuffle_window: int = SHUFFLE_WINDOW,
    scale: tuple[float, float] = (0.5, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: bool = False,
    max_bad_fraction: float = 0.01,
    max_pixels: int = MAX_PIXELS,
    pin_memory: bool = False,
    eval_transform: Callable[[Image.Image], Tensor] | None = None,
) -> Stream:
    """Open one epoch of a data set on one rank.

    Training: the order of :class:`~bimodal_cl.data.plan.EpochPlan`; ``num_images // (batch_size * world_size)`` full
    batches on every rank; one caption an image and its crop drawn by (seed, epoch, image id). The slot of a sample
    that cannot be used is filled as :func:`~bimodal_cl.data.stages.read_rows` states. Batches depend neither on
    ``num_workers`` nor on ``start_step``, and global batches not on ``world_size``.

    Evaluation (``train=False``): every image once in the manifest's order with its first caption and a centre crop;
    rank r of W has the images ``[N r // W, N (r+1) // W)``, the last batch may be short, and a sample that cannot be
    used is left out and counted.

    Args:
        folder: with the shards and their ``manifest.json``, or the manifest.
        batch_size: pairs of a batch of this rank, >= 1.
        image_size: side of the images, pixels, >= 1.
        seed: of the run, >= 0.
        epoch: number of the pass, >= 0.
        start_step: batches to leave out at the beginning, ``0 <= start_step <= steps``; nothing of them is read.
        rank, world_size: this process among the ranks.
        num_workers: processes that read and decode; 0 does it in this one.
        train: training or evaluation.
        shuffle_window: rows that are permuted together, >= 1 (training).
        scale, ratio, flip: of :class:`~bimodal_cl.data.transforms.TrainTransform` (training).
        max_bad_fraction: share of the samples, in [0, 1], above which faults stop the stream, as
            :meth:`~bimodal_cl.data.faults.FaultCounts.require_few` states.
        max_pixels: more pixels than this make an image a fault, >= 1.
        pin_memory: put the images in page-locked memory where CUDA is there.
        eval_transform: what evaluation does to an image instead of :class:`EvalTransform`, such as the preprocessing
            that a published model was trained with.

    Raises:
        UserError: a value is out of range, the manifest or a shard does not fit, or the data set does not fill one
            global batch.
    """
    _require_ranges(
        batch_size=(batch_size, 1, None),
        world_size=(world_size, 1, None),
        rank=(rank, 0, world_size - 1),
        num_workers=(num_workers, 0, None),
        seed=(seed, 0, None),
        epoch=(epoch, 0, None),
        max_bad_fraction=(max_bad_fraction, 0, 1),
        max_pixels=(max_pixels, 1, None),
    )
    manifest = folder if isinstance(folder, Manifest) else Manifest.load(folder)
    plan: EpochPlan | SequentialPlan
    image_ids: Callable[[int], np.ndarray]
    transform: Callable[[Image.Image, int], Tensor]
    draw_caption: Callable[[int, int], int]
    if train:
        sizes = [shard.num_images for shard in manifest.shards]
        try:
            plan = EpochPlan(sizes, seed, epoch, batch_size * world_size, shuffle_window)
        except UserError as error:
            raise UserError(f"{manifest.folder}: {error}") from None
        image_ids = partial(plan.image_ids, first_row=rank * batch_size, last_row=(rank + 1) * batch_size)
        train_transform = TrainTransform(image_size, scale, ratio, flip)
        transform = partial(_augment, train_transform, seed, epoch)
        draw_caption = partial(_draw_caption, seed, epoch)
    else:
        plan = SequentialPlan(manifest.num_images, batch_size, rank, world_size)
        image_ids = plan.image_ids
        transform = partial(_transform, eval_transform or EvalTransform(image_size))
        draw_caption = _first_caption
    _require_ranges(start_step=(start_step, 0, plan.steps))

    def build_pipeline() -> wds.DataPipeline:
        return wds.DataPipeline(
            partial(stages.list_rows, image_ids, start_step, plan.steps),
            partial(
                stages.read_rows, manifest=manifest, seed=seed, epoch=epoch, max_pixels=max_pixels, substitute=train
            ),
            partial(stages.transform_rows, transform=transform),
            partial(stages.batch_rows, draw_caption=draw_caption),
            stages.forward_errors,
        )

    return Stream(manifest, plan, build_pipeline, start_step, num_workers, max_bad_fraction, pin_memory)


def _augment(transform: TrainTransform, seed: int, epoch: int, image: Image.Image, image_id: int) -> Tensor:
    return transform(image, seed, epoch, image_id)


def _transform(transform: Callable[[Image.Image], Tensor], image: Image.Image, image_id: int) -> Tensor:
    return transform(image)


def _draw_caption(seed: int, epoch: int, image_id: int, count: int) -> int:
    return int(draw_below(count, Purpose.CAPTION, seed, epoch, image_id)[0])


def _first_caption(image_id: int, count: int) -> int:
    return 0


def _require_ranges(**values: tuple[float, float, float | None]) -> None:
    for name, (value, least, most) in values.items():
        if value < least or (most is not None and value > most):
            raise UserError(
                f"{name} must be {f'in [{least}, {most}]' if most is not None else f'>= {least}'}, got {value}"
            )
