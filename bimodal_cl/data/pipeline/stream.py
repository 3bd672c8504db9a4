"""Stream batches: a webdataset pipeline over the schedule, in worker processes or in this one."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
import webdataset as wds
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from bimodal_cl.data.images.decode import MAX_PIXELS, open_encoded
from bimodal_cl.data.images.transforms import TrainTransform
from bimodal_cl.data.order.draws import draw_caption
from bimodal_cl.data.order.plan import SHUFFLE_WINDOW
from bimodal_cl.data.order.schedule import EvaluationSchedule, Schedule, TrainSchedule
from bimodal_cl.data.pipeline import stages
from bimodal_cl.data.pipeline.stages import Batch, Delivery, Stopwatch
from bimodal_cl.data.shards.faults import FaultCounts
from bimodal_cl.data.shards.mixture import Folders, Mixture, open_mixture
from bimodal_cl.data.shards.reader import Row, RowReader
from bimodal_cl.data.storage.storage import Storage
from bimodal_cl.distributed import gather_objects
from bimodal_cl.errors import RunStopped, UserError
from bimodal_cl.preprocess import EvalTransform

__all__ = ["Batch", "Stream", "open_stream"]

_GRACE = 30  # seconds that a worker lives on after SIGTERM


class Stream:
    """The batches of one or more epochs on one rank; iterating again yields the same batches again.

    Args:
        mixture: the data.
        schedule: of the batches.
        build_pipeline: makes the webdataset pipeline of ``Delivery`` that workers run, stage by stage.
        num_workers: processes that read and decode.
        max_bad_fraction: see :meth:`~bimodal_cl.data.shards.faults.FaultCounts.require_few`.
        pin_memory: put images and tokens in page-locked memory if CUDA is available.
        evaluation: whether this is a single pass, whose faults are judged by the size of the whole data.

    Attributes:
        mixture, build_pipeline, num_workers: as given.
        steps: batches of an epoch on this rank.
        start_step: the first batch of the stream; ``len(stream) == steps * num_epochs - start_step``.
        dropped: images left over at the end of an epoch, less than one global batch.
        seconds: what the current or last iteration took, by stage: the names are those of ``stages.TIMED``, summed over
            workers, and ``"wait"``, the time that this process waited for them.
        samples_by_set: samples of the current or last iteration so far, by data set.
    """

    def __init__(
        self,
        mixture: Mixture,
        schedule: Schedule,
        build_pipeline: Callable[[], wds.DataPipeline],
        num_workers: int,
        max_bad_fraction: float,
        pin_memory: bool,
        evaluation: bool = False,
    ) -> None:
        self.mixture = mixture
        self.steps = schedule.steps
        self.dropped = schedule.dropped
        self.start_step = schedule.start
        self.build_pipeline = build_pipeline
        self.seconds: dict[str, float] = {}
        self.samples_by_set: Counter[str] = Counter()
        self._length = schedule.stop - schedule.start
        self.num_workers = num_workers
        self._max_bad_fraction = max_bad_fraction
        self._num_images = mixture.num_images if evaluation else None
        self._pin_memory = pin_memory
        self._counts = FaultCounts()

    def __len__(self) -> int:
        return self._length

    def report(self) -> FaultCounts:
        """Return the faults of the current or last iteration so far, on this rank."""
        return deepcopy(self._counts)

    def report_of_all_ranks(self) -> FaultCounts:
        """Return the faults of an evaluation on all ranks, in the order of ids; every rank calls it at the end.

        Raises:
            UserError: too many samples are faulty.
        """
        counts, *others = gather_objects(self.report())
        for later in others:
            counts.merge(later)
        if counts.examples:
            counts.require_few(self._max_bad_fraction, self.mixture, counts.examples[-1], self._num_images)
        return counts

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yield the batches from ``start_step`` on.

        Raises:
            UserError: a shard is not what the manifest says, or too many samples are faulty, here or in a worker.
            RunStopped: a server failed too often.
        """
        self._counts = counts = FaultCounts()
        self.seconds, self.samples_by_set = dict.fromkeys((*stages.TIMED, "wait"), 0.0), Counter()
        deliveries = iter(self._build_loader())
        asked = time.perf_counter()
        try:
            for delivery in deliveries:
                self.seconds["wait"] += time.perf_counter() - asked
                for name, seconds in (delivery.seconds or {}).items():
                    self.seconds[name] += seconds
                if delivery.error is not None:
                    raise (UserError if delivery.is_mistake else RunStopped)(delivery.error)
                counts.add(delivery.samples, delivery.faults, delivery.used)
                if delivery.faults:
                    counts.require_few(self._max_bad_fraction, self.mixture, delivery.faults[-1], self._num_images)
                if delivery.batch is not None:
                    self.samples_by_set += self.mixture.count(delivery.batch.image_ids.numpy())
                    yield delivery.batch
                asked = time.perf_counter()
        finally:
            del deliveries  # the last reference: workers end now instead of at a later garbage collection

    def _build_loader(self) -> DataLoader[Delivery]:
        return DataLoader(
            self.build_pipeline(),
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=self._pin_memory and torch.cuda.is_available(),
            # A loader draws a seed for its workers when it starts. If it drew from the global generator, what the model
            # draws later would depend on how often a run was resumed.
            generator=torch.Generator().manual_seed(0),
            worker_init_fn=_prepare_worker,
        )


def open_stream(
    folder: Folders,
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
    num_epochs: int = 1,
    shuffle_window: int = SHUFFLE_WINDOW,
    scale: tuple[float, float] = (0.5, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: bool = False,
    interpolation: str = "bicubic",
    max_bad_fraction: float = 0.01,
    max_pixels: int = MAX_PIXELS,
    pin_memory: bool = False,
    eval_transform: Callable[[Image.Image], Tensor] | None = None,
    augment_epoch: int | None = None,
    tokenize: Callable[[list[str]], Tensor] | None = None,
    storage: Storage | None = None,
) -> Stream:
    """Open the stream of one or more epochs of a data set, or of a mixture of several, on one rank.

    Training: the order is that of :class:`~bimodal_cl.data.order.plan.EpochPlan`. A caption of each image and its crop
    are drawn by (seed, epoch, image id). :func:`~bimodal_cl.data.pipeline.stages.fill_batches` replaces faulty rows.
    Batches do not depend on ``num_workers`` and ``start_step``, nor global batches on ``world_size``.

    Evaluation (``train=False``): every image comes once, in the order of ids, with its first caption and a centre crop.
    The last batch may be short, and a sample that cannot be used is left out and counted.

    Args:
        folder: with ``manifest.json``, or the manifest, or a mixture.
        batch_size, image_size: pairs of a batch of this rank; side of the images in pixels; >= 1.
        seed, epoch: of the run; number of the first pass; >= 0.
        start_step: batches to skip at the beginning, in [0, steps]; none of their data is read.
        rank, world_size: this process among the ranks.
        num_workers, train: processes that read and decode, 0: this process does; training or evaluation.
        num_epochs, shuffle_window: passes; rows that are permuted together; >= 1 (training).
        scale, ratio, flip, interpolation: of :class:`~bimodal_cl.data.images.transforms.TrainTransform`.
        max_bad_fraction: in [0, 1]; see :meth:`~bimodal_cl.data.shards.faults.FaultCounts.require_few`.
        max_pixels: an image with more pixels is a fault, >= 1.
        pin_memory: put images and tokens in page-locked memory if CUDA is available.
        eval_transform: of evaluation, for RGB images; None: ``EvalTransform(image_size)``. A model has its own.
        augment_epoch: of evaluation: crop and mirror each image as this epoch of a training does; None: the centre.
        tokenize: ``list of texts -> int64 [texts, tokens]``, called by the workers to fill ``batch.tokens``.
        storage: opens shards that are not on this machine.

    Raises:
        UserError: a value is out of range, the manifest does not fit a shard, or the data does not fill a global batch.
    """
    _require_ranges(
        batch_size=(batch_size, 1, None),
        world_size=(world_size, 1, None),
        rank=(rank, 0, world_size - 1),
        num_workers=(num_workers, 0, None),
        seed=(seed, 0, None),
        epoch=(epoch, 0, None),
        num_epochs=(num_epochs, 1, None if train else 1),
        max_bad_fraction=(max_bad_fraction, 0, 1),
        max_pixels=(max_pixels, 1, None),
    )
    mixture = open_mixture(folder)
    schedule: Schedule
    augment = Augment(TrainTransform(image_size, scale, ratio, flip, interpolation), seed, max_pixels, augment_epoch)
    if train:
        steps = (num_epochs, start_step, batch_size)
        schedule = TrainSchedule(mixture, seed, epoch, *steps, rank, world_size, shuffle_window)
    else:
        schedule = EvaluationSchedule(mixture.num_images, batch_size, rank, world_size, start_step)
    centred = not train and augment_epoch is None
    prepare = Preprocess(eval_transform or EvalTransform(image_size), max_pixels) if centred else augment
    _require_ranges(start_step=(start_step, 0, schedule.steps))
    open_reader = partial(RowReader, mixture, storage or Storage())
    build_pipeline = partial(_build_pipeline, schedule, open_reader, prepare, seed, tokenize, train)
    return Stream(mixture, schedule, build_pipeline, num_workers, max_bad_fraction, pin_memory, not train)


def _build_pipeline(
    schedule: Schedule,
    open_reader: Callable[[], RowReader],
    prepare: stages.Prepare,
    seed: int,
    tokenize: Callable[[list[str]], Tensor] | None,
    train: bool,
) -> wds.DataPipeline:
    return wds.DataPipeline(
        partial(stages.schedule_batches, schedule),
        partial(stages.fill_batches, open_reader=open_reader, prepare=prepare, seed=seed, fill=train),
        partial(stages.collate, draw_caption=partial(_draw_caption, seed) if train else _first, tokenize=tokenize),
        stages.forward_errors,
    )


@dataclass(frozen=True)
class Augment:
    """Decode and augment an image of training, as a function of seed, epoch and image id.

    Args:
        transform: the augmentation.
        seed: of the run.
        max_pixels: an image with more pixels is a fault.
        epoch: in place of that of the pass; None: that one.
    """

    transform: TrainTransform
    seed: int
    max_pixels: int
    epoch: int | None = None

    def __call__(self, row: Row, epoch: int, image_id: int, stopwatch: Stopwatch) -> tuple[Tensor, Iterable[str]]:
        """Return the pixels of a row, uint8 ``[3, height, width]``, and the oddities of its image.

        Raises:
            BadImage: the image cannot be used.
        """
        encoded = open_encoded(row.image, self.max_pixels, row.extension)
        epoch = epoch if self.epoch is None else self.epoch
        pixels = self.transform.apply(encoded, self.seed, epoch, image_id, partial(stopwatch.lap, "decode"))
        stopwatch.lap("augment")
        return pixels, encoded.notes


@dataclass(frozen=True)
class Preprocess:
    """Decode and preprocess an image of evaluation, always in the same way.

    Args:
        transform: RGB image -> uint8 ``[3, height, width]``.
        max_pixels: an image with more pixels is a fault.
    """

    transform: Callable[[Image.Image], Tensor]
    max_pixels: int

    def __call__(self, row: Row, epoch: int, image_id: int, stopwatch: Stopwatch) -> tuple[Tensor, Iterable[str]]:
        """Return the pixels of a row, uint8 ``[3, height, width]``, and the oddities of its image.

        Raises:
            BadImage: the image cannot be used.
        """
        encoded = open_encoded(row.image, self.max_pixels, row.extension)
        image = encoded.decode()
        stopwatch.lap("decode")
        pixels = self.transform(image)
        stopwatch.lap("augment")
        return pixels, encoded.notes


def _prepare_worker(number: int) -> None:
    _outlive_signals()
    # A tokenizer that was used before the workers were forked prints a warning in each of them unless this is set.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _outlive_signals() -> None:
    """Let a worker go on when a signal to the whole job asks the run to finish its step.

    Ctrl-C in a terminal and a scheduler's signals reach workers, too, whose batches the step may still need. They end
    with the stream. A worker that gets ``SIGTERM`` ends at the latest after ``_GRACE`` seconds, so that a loader that
    closes does not wait for one that hangs.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGALRM, lambda number, frame: os._exit(0))
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_GRACE))


def _draw_caption(seed: int, epoch: int, image_id: int, count: int) -> int:
    return int(draw_caption(count, seed, epoch, image_id)[0])


def _first(epoch: int, image_id: int, count: int) -> int:
    return 0


def _require_ranges(**values: tuple[float, float, float | None]) -> None:
    for name, (value, least, most) in values.items():
        if value < least or (most is not None and value > most):
            raise UserError(
                f"{name} must be {f'in [{least}, {most}]' if most is not None else f'>= {least}'}, got {value}"
            )
