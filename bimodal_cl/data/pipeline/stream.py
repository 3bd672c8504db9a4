"""The stream of batches: webdataset's pipeline over the schedule, in worker processes or in this one."""

from __future__ import annotations

import os
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
from bimodal_cl.data.order.draws import Purpose, draw_below
from bimodal_cl.data.order.plan import SHUFFLE_WINDOW
from bimodal_cl.data.order.schedule import EvaluationSchedule, TrainSchedule
from bimodal_cl.data.pipeline import stages
from bimodal_cl.data.pipeline.stages import Batch, Delivery, Stopwatch
from bimodal_cl.data.shards.faults import FaultCounts
from bimodal_cl.data.shards.manifest import Manifest
from bimodal_cl.data.shards.mixture import Folders, Mixture, open_mixture
from bimodal_cl.data.shards.reader import Row, RowReader
from bimodal_cl.data.storage.storage import Storage
from bimodal_cl.errors import RunStopped, UserError
from bimodal_cl.preprocess import EvalTransform

__all__ = ["Batch", "Stream", "open_stream"]


class Stream:
    """The batches of one or more epochs on one rank; iterating again gives the same batches again.

    Attributes:
        mixture: the data.
        steps: batches of an epoch on this rank.
        start_step: the first that is given out; ``len(stream) == steps * num_epochs - start_step``.
        dropped: images left over at an epoch's end, less than one global batch.
        num_workers: processes that read and decode.
        build_pipeline: makes the webdataset pipeline of ``Delivery`` that workers run, stage by stage.
        seconds: what the current, or else the last, iteration took, by stage: the stages' names are those of
            ``stages.TIMED``, summed over workers, and ``"wait"``, for how long this process waited for them.
        samples_by_set: samples given out so far in it, by data set.
    """

    def __init__(
        self,
        mixture: Mixture,
        schedule: TrainSchedule | EvaluationSchedule,
        build_pipeline: Callable[[], wds.DataPipeline],
        num_workers: int,
        max_bad_fraction: float,
        pin_memory: bool,
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
        self._pin_memory = pin_memory
        self._counts = FaultCounts()

    @property
    def manifest(self) -> Manifest:
        """Of the data set, where there is only one."""
        (manifest,) = self.mixture.manifests
        return manifest

    def __len__(self) -> int:
        return self._length

    def report(self) -> FaultCounts:
        """Return the faults of the current, or else the last, iteration so far on this rank."""
        return deepcopy(self._counts)

    def __iter__(self) -> Generator[Batch, None, None]:
        """Give out the batches from ``start_step`` on.

        Raises:
            UserError: a shard is not what the manifest says, or too many samples are faulty; also from a worker.
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
                    counts.require_few(self._max_bad_fraction, self.mixture, delivery.faults[-1])
                if delivery.batch is not None:
                    self.samples_by_set += self.mixture.count(delivery.batch.image_ids.numpy())
                    yield delivery.batch
                asked = time.perf_counter()
        finally:
            del deliveries  # the last reference: workers end now, and not at some later collection

    def _build_loader(self) -> DataLoader[Delivery]:
        return DataLoader(
            self.build_pipeline(),
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=self._pin_memory and torch.cuda.is_available(),
            # A loader draws a seed for its workers when it starts. From the global generator, that would make what
            # the model draws later depend on how often a run was resumed.
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
    max_bad_fraction: float = 0.01,
    max_pixels: int = MAX_PIXELS,
    pin_memory: bool = False,
    eval_transform: Callable[[Image.Image], Tensor] | None = None,
    tokenize: Callable[[list[str]], Tensor] | None = None,
    storage: Storage | None = None,
) -> Stream:
    """Open epochs of a data set, or of a mixture of several, on one rank.

    Training: the order of :class:`~bimodal_cl.data.order.plan.EpochPlan`; one caption an image and its crop drawn by
    (seed, epoch, image id); rows that cannot be used are filled as
    :func:`~bimodal_cl.data.pipeline.stages.fill_batches` states. Batches depend neither on ``num_workers`` nor on
    ``start_step``, and global batches not on ``world_size``.

    Evaluation (``train=False``): every image once in the order of ids with its first caption and a centre crop; rank r
    of W has the images ``[N r // W, N (r+1) // W)``, the last batch may be short, and a sample that cannot be used is
    left out and counted.

    Args:
        folder: with ``manifest.json``, or the manifest, or a mixture.
        batch_size, image_size: pairs of a batch of this rank; side of the images in pixels; >= 1.
        seed, epoch: of the run; number of the first pass; >= 0.
        start_step: batches left out at the beginning, in [0, steps]; nothing of them is read.
        rank, world_size: this process among the ranks.
        num_workers: processes that read and decode, over all the epochs; 0 does it in this one.
        train: training or evaluation.
        num_epochs, shuffle_window: passes; rows that are permuted together; >= 1 (training).
        scale, ratio, flip: of :class:`~bimodal_cl.data.images.transforms.TrainTransform` (training).
        max_bad_fraction: in [0, 1]; see :meth:`~bimodal_cl.data.shards.faults.FaultCounts.require_few`.
        max_pixels: more pixels than this make an image a fault, >= 1.
        pin_memory: put images and tokens in page-locked memory where CUDA is there.
        eval_transform: what evaluation does to an image; None: ``EvalTransform(image_size)``. A model has its own.
        tokenize: ``list of texts -> int64 [texts, tokens]``; workers then fill ``batch.tokens``.
        storage: how shards that are elsewhere are fetched and kept.

    Raises:
        UserError: a value is out of range, a manifest or shard does not fit, or the data fill no global batch.
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
    schedule: TrainSchedule | EvaluationSchedule
    prepare: stages.Prepare
    if train:
        schedule = TrainSchedule(
            mixture, seed, epoch, num_epochs, start_step, batch_size, rank, world_size, shuffle_window
        )
        prepare = Augment(TrainTransform(image_size, scale, ratio, flip), seed, max_pixels)
    else:
        schedule = EvaluationSchedule(mixture.num_images, batch_size, rank, world_size, start_step)
        prepare = Preprocess(eval_transform or EvalTransform(image_size), max_pixels)
    _require_ranges(start_step=(start_step, 0, schedule.steps))
    open_reader = partial(RowReader, mixture, storage or Storage())
    build_pipeline = partial(_build_pipeline, schedule, open_reader, prepare, seed, tokenize, train)
    return Stream(mixture, schedule, build_pipeline, num_workers, max_bad_fraction, pin_memory)


def _build_pipeline(
    schedule: stages.Schedule,
    open_reader: Callable[[], RowReader],
    prepare: stages.Prepare,
    seed: int,
    tokenize: Callable[[list[str]], Tensor] | None,
    train: bool,
) -> wds.DataPipeline:
    return wds.DataPipeline(
        partial(stages.plan_batches, schedule),
        partial(stages.fill_batches, open_reader=open_reader, prepare=prepare, seed=seed, fill=train),
        partial(stages.collate, draw_caption=partial(_draw_caption, seed) if train else _first, tokenize=tokenize),
        stages.forward_errors,
    )


@dataclass(frozen=True)
class Augment:
    """What training does to an image: a function of seed, epoch and image id."""

    transform: TrainTransform
    seed: int
    max_pixels: int

    def __call__(self, row: Row, epoch: int, image_id: int, stopwatch: Stopwatch) -> tuple[Tensor, Iterable[str]]:
        """Decode and augment."""
        encoded = open_encoded(row.image, self.max_pixels, row.extension)
        pixels = self.transform.apply(encoded, self.seed, epoch, image_id, partial(stopwatch.lap, "decode"))
        stopwatch.lap("augment")
        return pixels, encoded.notes


@dataclass(frozen=True)
class Preprocess:
    """What evaluation does to an image: the same for everybody."""

    transform: Callable[[Image.Image], Tensor]
    max_pixels: int

    def __call__(self, row: Row, epoch: int, image_id: int, stopwatch: Stopwatch) -> tuple[Tensor, Iterable[str]]:
        """Decode fully and preprocess."""
        encoded = open_encoded(row.image, self.max_pixels, row.extension)
        image = encoded.decode()
        stopwatch.lap("decode")
        pixels = self.transform(image)
        stopwatch.lap("augment")
        return pixels, encoded.notes


def _prepare_worker(number: int) -> None:
    # A tokenizer that was used before the workers were forked warns in each of them, unless it is told.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _draw_caption(seed: int, epoch: int, image_id: int, count: int) -> int:
    return int(draw_below(count, Purpose.CAPTION, seed, epoch, image_id)[0])


def _first(epoch: int, image_id: int, count: int) -> int:
    return 0


def _require_ranges(**values: tuple[float, float, float | None]) -> None:
    for name, (value, least, most) in values.items():
        if value < least or (most is not None and value > most):
            raise UserError(
                f"{name} must be {f'in [{least}, {most}]' if most is not None else f'>= {least}'}, got {value}"
            )
