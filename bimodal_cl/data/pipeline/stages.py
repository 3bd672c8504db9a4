"""The stages between schedule and batches, each a generator: plan batches, read and prepare rows, collate them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from bimodal_cl.data.images.decode import BadImage
from bimodal_cl.data.order.draws import Purpose, draw_below
from bimodal_cl.data.shards.faults import MAX_EXAMPLES, REPLACED_KINDS, Fault
from bimodal_cl.data.shards.reader import Row, RowReader
from bimodal_cl.errors import ServerFailed, UserError

SAME_SHARD_DRAWS = 16
ANY_SHARD_DRAWS = 16
TIMED = ("read", "decode", "augment", "collate")


@dataclass(frozen=True)
class Batch:
    """Pairs of one step on one rank, in the plan's order.

    Args:
        epoch: the pass over the data that it is part of.
        step: which global batch of the epoch it is part of.
        images: uint8 ``[batch, 3, height, width]``, in channels-last memory.
        texts: the drawn caption of each image (evaluation: its first).
        image_ids, text_ids: int64 ``[batch]``.
        captions: all captions of each image.
        first_text_ids: int64 ``[batch]``, the ``text_id`` of each image's first caption.
        tokens: int64 ``[batch, tokens]`` of the texts, where the stream was given a tokenizer.
    """

    epoch: int
    step: int
    images: Tensor
    texts: list[str]
    image_ids: Tensor
    text_ids: Tensor
    captions: list[list[str]]
    first_text_ids: Tensor
    tokens: Tensor | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def pin_memory(self) -> Batch:
        """Return it with images and tokens in page-locked memory."""
        tokens = None if self.tokens is None else self.tokens.pin_memory()
        return replace(self, images=self.images.pin_memory(), tokens=tokens)


@dataclass(frozen=True)
class Delivery:
    """What a worker hands over for one batch.

    Args:
        batch: ``None`` where no sample of it is good (evaluation only), or where ``error`` is set.
        samples: rows that the plan has for it.
        faults: among those rows.
        used: oddities among those rows by kind; they were used.
        seconds: what the worker spent on the batch, by the names of ``TIMED``.
        error: what ended the worker, in one line; exceptions do not cross processes as one.
        is_mistake: whether that is the user's to mend, and not a server's failure.
    """

    batch: Batch | None
    samples: int = 0
    faults: tuple[Fault, ...] = ()
    used: Counter[str] | None = None
    seconds: dict[str, float] | None = None
    error: str | None = None
    is_mistake: bool = True

    def pin_memory(self) -> Delivery:
        """Return it with the batch in page-locked memory."""
        return replace(self, batch=self.batch.pin_memory()) if self.batch else self


@dataclass(frozen=True)
class PlannedBatch:
    """The image ids of this rank's part of a global batch, in order."""

    epoch: int
    step: int
    image_ids: list[int]


class Schedule(Protocol):
    """The batches of this rank: ``schedule(number)`` for ``number`` from ``start`` to ``stop``."""

    start: int
    stop: int

    def __call__(self, number: int) -> PlannedBatch:
        """Return one of them."""
        ...


class Prepare(Protocol):
    """Turns an encoded image into the pixels of a batch."""

    def __call__(self, row: Row, epoch: int, image_id: int, stopwatch: Stopwatch) -> tuple[Tensor, Iterable[str]]:
        """Return uint8 ``[3, height, width]`` and the kinds of oddities found, or raise ``BadImage``."""
        ...


@dataclass(frozen=True)
class Sample:
    """What fills a row of a batch.

    Args:
        image_id: of the planned image, or of its substitute. -1 where nothing fills the row.
        image: uint8 ``[3, height, width]``; ``None`` where nothing fills the row.
        captions, first_text_id: of that image.
        fault: of the planned image.
        used: oddities of the planned image.
    """

    image_id: int = -1
    image: Tensor | None = None
    captions: tuple[str, ...] = ()
    first_text_id: int = -1
    fault: Fault | None = None
    used: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unusable:
    """Why a row cannot be used: a kind of ``REPLACED_KINDS``, and what was found."""

    kind: str
    reason: str

    def describe(self, reader: RowReader, image_id: int, with_key: bool = True) -> Fault:
        """Name the row, by its key or by its number in the shard."""
        shard, key = reader.describe(image_id, with_key)
        return Fault(self.kind, shard, key, image_id, self.reason)


class Stopwatch:
    """Seconds by name. ``lap(name)`` gives the time since the lap before to a name."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(TIMED, 0.0)
        self._last = time.perf_counter()

    def lap(self, name: str | None = None) -> None:
        """Give the time since the last lap to a name; to none without one."""
        now = time.perf_counter()
        if name is not None:
            self.seconds[name] += now - self._last
        self._last = now


def plan_batches(schedule: Schedule) -> Iterator[PlannedBatch]:
    """List this worker's batches: every ``num_workers``-th from its own number on.

    A data loader asks its workers in turn, so their batches arrive in the plan's order.
    """
    worker = get_worker_info()
    first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
    for number in range(schedule.start + first, schedule.stop, stride):
        yield schedule(number)


def fill_batches(
    planned: Iterable[PlannedBatch], open_reader: Callable[[], RowReader], prepare: Prepare, seed: int, fill: bool
) -> Iterator[tuple[PlannedBatch, list[Sample], Stopwatch]]:
    """Read and prepare each row's image and captions; fill a faulty one's row by the stated rule, or leave it empty.

    The rule: the k-th attempt (from 0) takes row ``draw_below(rows, SUBSTITUTE, seed, epoch, image_id, k)`` of the
    same shard, from k = 16 on that image of the whole data set, until one is good. So the place is filled alike
    whoever reads it, and its ids are the substitute's own.

    Raises:
        UserError: a shard is not what the manifest says, or 32 attempts find nothing good.
    """
    reader = open_reader()
    named = 0
    try:
        for batch in planned:
            stopwatch = Stopwatch()
            reader.prefetch(batch.image_ids)
            samples = []
            for image_id in batch.image_ids:
                sample = _prepare_row(reader, batch.epoch, image_id, prepare, stopwatch)
                if isinstance(sample, Unusable):
                    named += 1  # only the first examples are shown, and keys cost time
                    fault = sample.describe(reader, image_id, with_key=named <= MAX_EXAMPLES)
                    sample = Sample()
                    if fill:
                        sample = _find_substitute(reader, batch.epoch, image_id, prepare, seed, stopwatch)
                    sample = replace(sample, fault=fault, used=())
                samples.append(sample)
            yield batch, samples, stopwatch
    finally:
        reader.close()


def _prepare_row(
    reader: RowReader, epoch: int, image_id: int, prepare: Prepare, stopwatch: Stopwatch
) -> Sample | Unusable:
    try:
        row = reader.read(image_id)
        stopwatch.lap("read")
        if not row.captions:
            return Unusable(row.caption_fault, REPLACED_KINDS[row.caption_fault])
        image, oddities = prepare(row, epoch, image_id, stopwatch)
    except BadImage as error:
        return Unusable(error.kind, str(error))
    except ServerFailed:  # filling the row would make the samples depend on the network
        raise
    except OSError as error:
        return Unusable("unreadable", str(error))
    used = (*oddities, *(("not_utf8",) if row.not_utf8 else ()))
    return Sample(image_id, image, tuple(row.captions), row.first_text_id, used=used)


def _find_substitute(
    reader: RowReader, epoch: int, image_id: int, prepare: Prepare, seed: int, stopwatch: Stopwatch
) -> Sample:
    for attempt in range(SAME_SHARD_DRAWS + ANY_SHARD_DRAWS):
        first, rows = reader.neighbours(image_id, near=attempt < SAME_SHARD_DRAWS)
        drawn = first + int(draw_below(rows, Purpose.SUBSTITUTE, seed, epoch, image_id, attempt)[0])
        sample = _prepare_row(reader, epoch, drawn, prepare, stopwatch)
        if isinstance(sample, Sample):
            return sample
    assert isinstance(sample, Unusable)
    shard, key = reader.describe(image_id)
    folder = reader.folder(image_id)
    raise UserError(
        f"{folder}: {SAME_SHARD_DRAWS + ANY_SHARD_DRAWS} images drawn to replace image {image_id} of shard {shard}, "
        f"key {key}, are all faulty; the last: {sample.describe(reader, drawn)}; "
        f"`bimodal-prep verify {folder}` names them all"
    )


def collate(
    batches: Iterable[tuple[PlannedBatch, list[Sample], Stopwatch]],
    draw_caption: Callable[[int, int, int], int],
    tokenize: Callable[[list[str]], Tensor] | None = None,
) -> Iterator[Delivery]:
    """Put a step's samples together, with caption number ``draw_caption(epoch, image_id, count)`` of each image."""
    for planned, samples, stopwatch in batches:
        stopwatch.lap()
        faults = tuple(sample.fault for sample in samples if sample.fault is not None)
        used = Counter(kind for sample in samples for kind in sample.used)
        good = [sample for sample in samples if sample.image is not None]
        batch = _build_batch(planned, good, draw_caption, tokenize) if good else None
        stopwatch.lap("collate")
        yield Delivery(batch, len(samples), faults, used, stopwatch.seconds)


def _build_batch(
    planned: PlannedBatch,
    samples: list[Sample],
    draw_caption: Callable[[int, int, int], int],
    tokenize: Callable[[list[str]], Tensor] | None,
) -> Batch:
    drawn = [draw_caption(planned.epoch, sample.image_id, len(sample.captions)) for sample in samples]
    first_text_ids = torch.tensor([sample.first_text_id for sample in samples])
    # Rows of pixels with their channels together, as decoders give them and convolutions like them: no transposition.
    # numpy, since torch would start its threads for so small copies.
    images = np.stack([sample.image.numpy().transpose(1, 2, 0) for sample in samples if sample.image is not None])
    texts = [sample.captions[n] for sample, n in zip(samples, drawn, strict=True)]
    return Batch(
        epoch=planned.epoch,
        step=planned.step,
        images=torch.from_numpy(images).permute(0, 3, 1, 2),
        texts=texts,
        image_ids=torch.tensor([sample.image_id for sample in samples]),
        text_ids=first_text_ids + torch.tensor(drawn),
        captions=[list(sample.captions) for sample in samples],
        first_text_ids=first_text_ids,
        tokens=None if tokenize is None else tokenize(texts),
    )


def forward_errors(deliveries: Iterable[Delivery]) -> Iterator[Delivery]:
    """Hand over, as a last delivery, what ends the stream, so that it stays one line on the way out of a worker."""
    try:
        yield from deliveries
    except (UserError, ServerFailed) as error:
        yield Delivery(None, error=str(error), is_mistake=isinstance(error, UserError))
