"""Turn a schedule into batches by stages, each a generator: schedule batches, read and prepare rows, collate them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from bimodal_cl.data.images.decode import BadImage
from bimodal_cl.data.order.draws import Purpose, draw_below
from bimodal_cl.data.order.schedule import Schedule, ScheduledBatch
from bimodal_cl.data.shards.faults import MAX_EXAMPLES, REPLACED_KINDS, Fault
from bimodal_cl.data.shards.reader import Row, RowReader
from bimodal_cl.errors import ServerFailed, UserError

SAME_SHARD_DRAWS = 16
ANY_SHARD_DRAWS = 16
TIMED = ("read", "decode", "augment", "collate")


@dataclass(frozen=True)
class Batch:
    """Pairs of one step on one rank, in the order of the schedule.

    Args:
        epoch: the pass over the data that the batch is part of.
        step: number of the global batch in that epoch.
        images: uint8 ``[batch, 3, height, width]``, in channels-last memory; or features, float16 ``[batch, width]``.
        texts: the drawn caption of each image (evaluation: its first); none with features, nor ``captions``.
        image_ids, text_ids: int64 ``[batch]``.
        captions: all captions of each image.
        first_text_ids: ``text_id`` of each image's first caption, int64 ``[batch]``.
        tokens: of the texts, int64 ``[batch, tokens]``; ``[batch, 0]`` from a stream without a tokenizer; or their
            features, float16 ``[batch, width]``.
    """

    epoch: int
    step: int
    images: Tensor
    texts: list[str]
    image_ids: Tensor
    text_ids: Tensor
    captions: list[list[str]]
    first_text_ids: Tensor
    tokens: Tensor

    def __len__(self) -> int:
        return len(self.image_ids)

    def pin_memory(self) -> Batch:
        """Return the batch with images and tokens in page-locked memory."""
        return replace(self, images=self.images.pin_memory(), tokens=self.tokens.pin_memory())


@dataclass(frozen=True)
class Delivery:
    """What a worker delivers for one batch.

    Args:
        batch: the batch; ``None`` if no sample of it can be used (evaluation only), or if ``error`` is set.
        samples: scheduled rows.
        faults: among those rows.
        used: oddities among those rows, by kind; they were used.
        seconds: the time that the worker spent on the batch, by the names of ``TIMED``.
        error: the error that ended the worker, in one line; an exception would arrive with a traceback.
        is_mistake: whether the error is a mistake of the user, and not a server's failure.
    """

    batch: Batch | None
    samples: int = 0
    faults: tuple[Fault, ...] = ()
    used: Counter[str] | None = None
    seconds: dict[str, float] | None = None
    error: str | None = None
    is_mistake: bool = True

    def pin_memory(self) -> Delivery:
        """Return the delivery with the batch in page-locked memory."""
        return replace(self, batch=self.batch.pin_memory()) if self.batch else self


class Prepare(Protocol):
    """Turn an encoded image into the pixels of a batch."""

    def __call__(self, row: Row, epoch: int, image_id: int, stopwatch: Stopwatch) -> tuple[Tensor, Iterable[str]]:
        """Return uint8 ``[3, height, width]`` and the kinds of oddities found.

        Raises:
            BadImage: the image cannot be used.
        """
        ...


@dataclass(frozen=True)
class PreparedSample:
    """A sample ready for collation: the content of one row of a batch.

    Args:
        image_id: of the scheduled image, or of its substitute; -1 if the row stays empty.
        image: uint8 ``[3, height, width]``; ``None`` if the row stays empty.
        captions, first_text_id: of that image.
        fault: of the scheduled image.
        used: oddities of the scheduled image.
    """

    image_id: int = -1
    image: Tensor | None = None
    captions: tuple[str, ...] = ()
    first_text_id: int = -1
    fault: Fault | None = None
    used: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unusable:
    """Why a row cannot be used.

    Args:
        kind: one of ``REPLACED_KINDS``.
        reason: what was found.
    """

    kind: str
    reason: str

    def describe(self, reader: RowReader, image_id: int, with_key: bool = True) -> Fault:
        """Return the fault with the shard and key of its row, or with the row's number in place of the key."""
        shard, key = reader.describe(image_id, with_key)
        return Fault(self.kind, shard, key, image_id, self.reason)


class Stopwatch:
    """A stopwatch with laps.

    Attributes:
        seconds: total by name, of ``TIMED``.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(TIMED, 0.0)
        self._last = time.perf_counter()

    def lap(self, name: str | None = None) -> None:
        """End a lap, and add its time to a name, or to no name."""
        now = time.perf_counter()
        if name is not None:
            self.seconds[name] += now - self._last
        self._last = now


def schedule_batches(schedule: Schedule) -> Iterator[ScheduledBatch]:
    """Yield this worker's batches: every ``num_workers``-th from its own number on.

    A data loader asks its workers in turn, so their batches arrive in the order of the schedule.
    """
    worker = get_worker_info()
    first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
    for number in range(schedule.start + first, schedule.stop, stride):
        yield schedule(number)


def fill_batches(
    scheduled: Iterable[ScheduledBatch], open_reader: Callable[[], RowReader], prepare: Prepare, seed: int, fill: bool
) -> Iterator[tuple[ScheduledBatch, list[PreparedSample], Stopwatch]]:
    """Read and prepare the image and captions of each row; replace a faulty row by a substitute, or leave it empty.

    Attempt k (from 0) draws row ``draw_below(rows, SUBSTITUTE, seed, epoch, image_id, k)`` of the same shard, from
    k = 16 on that of the whole data set, until the drawn row can be used. So the substitute is the same for every
    worker and rank, and the row gets the substitute's ids.

    Args:
        scheduled: the batches.
        open_reader: opens the rows, once per worker.
        prepare: makes pixels of an encoded image.
        seed: of the run.
        fill: replace faulty rows (training) or leave them empty (evaluation).

    Raises:
        UserError: a shard is not what the manifest says, or 32 attempts find no row that can be used.
        ServerFailed: a server failed too often.
    """
    reader = open_reader()
    named = 0
    try:
        for batch in scheduled:
            stopwatch = Stopwatch()
            reader.prefetch(batch.image_ids)
            samples = []
            for image_id in batch.image_ids:
                sample = _prepare_row(reader, batch.epoch, image_id, prepare, stopwatch)
                if isinstance(sample, Unusable):
                    named += 1  # looking up a key takes time, and only the first examples are shown
                    fault = sample.describe(reader, image_id, with_key=named <= MAX_EXAMPLES)
                    sample = PreparedSample()
                    if fill:
                        sample = _find_substitute(reader, batch.epoch, image_id, prepare, seed, stopwatch)
                    sample = replace(sample, fault=fault, used=())
                samples.append(sample)
            yield batch, samples, stopwatch
    finally:
        reader.close()


def _prepare_row(
    reader: RowReader, epoch: int, image_id: int, prepare: Prepare, stopwatch: Stopwatch
) -> PreparedSample | Unusable:
    try:
        row = reader.read(image_id)
        stopwatch.lap("read")
        if not row.captions:
            return Unusable(row.caption_fault, REPLACED_KINDS[row.caption_fault])
        image, oddities = prepare(row, epoch, image_id, stopwatch)
    except BadImage as error:
        return Unusable(error.kind, str(error))
    except ServerFailed:  # a substitute would make the samples depend on the network
        raise
    except OSError as error:
        return Unusable("unreadable", str(error))
    used = (*oddities, *(("not_utf8",) if row.not_utf8 else ()))
    return PreparedSample(image_id, image, tuple(row.captions), row.first_text_id, used=used)


def draw_substitutes(
    neighbours: Callable[[bool], tuple[int, int]], seed: int, epoch: int, image_id: int
) -> Iterator[int]:
    """Yield the images that may take the place of a faulty one, in turn; see :func:`fill_batches`.

    Args:
        neighbours: whether near ones are wanted -> the first id and the number of the images to draw from.
        seed: of the run.
        epoch: the pass over the data.
        image_id: of the faulty image.
    """
    for attempt in range(SAME_SHARD_DRAWS + ANY_SHARD_DRAWS):
        first, rows = neighbours(attempt < SAME_SHARD_DRAWS)
        yield first + int(draw_below(rows, Purpose.SUBSTITUTE, seed, epoch, image_id, attempt)[0])


def _find_substitute(
    reader: RowReader, epoch: int, image_id: int, prepare: Prepare, seed: int, stopwatch: Stopwatch
) -> PreparedSample:
    for drawn in draw_substitutes(partial(reader.neighbours, image_id), seed, epoch, image_id):
        sample = _prepare_row(reader, epoch, drawn, prepare, stopwatch)
        if isinstance(sample, PreparedSample):
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
    batches: Iterable[tuple[ScheduledBatch, list[PreparedSample], Stopwatch]],
    draw_caption: Callable[[int, int, int], int],
    tokenize: Callable[[list[str]], Tensor] | None = None,
) -> Iterator[Delivery]:
    """Collate the samples of each batch.

    Args:
        batches: scheduled batches with their samples and the time that they took.
        draw_caption: ``(epoch, image_id, number of captions) -> number of the caption`` that becomes the text.
        tokenize: ``list of texts -> int64 [texts, tokens]``; None: no tokens.
    """
    for scheduled, samples, stopwatch in batches:
        stopwatch.lap()
        faults = tuple(sample.fault for sample in samples if sample.fault is not None)
        used = Counter(kind for sample in samples for kind in sample.used)
        good = [sample for sample in samples if sample.image is not None]
        batch = _build_batch(scheduled, good, draw_caption, tokenize) if good else None
        stopwatch.lap("collate")
        yield Delivery(batch, len(samples), faults, used, stopwatch.seconds)


def _build_batch(
    scheduled: ScheduledBatch,
    samples: list[PreparedSample],
    draw_caption: Callable[[int, int, int], int],
    tokenize: Callable[[list[str]], Tensor] | None,
) -> Batch:
    drawn = [draw_caption(scheduled.epoch, sample.image_id, len(sample.captions)) for sample in samples]
    first_text_ids = torch.tensor([sample.first_text_id for sample in samples])
    # Channels-last, as decoders produce pixels and convolutions read them fastest, so nothing is transposed. numpy,
    # because torch would start its threads for such small copies.
    images = np.stack([sample.image.numpy().transpose(1, 2, 0) for sample in samples if sample.image is not None])
    texts = [sample.captions[n] for sample, n in zip(samples, drawn, strict=True)]
    return Batch(
        epoch=scheduled.epoch,
        step=scheduled.step,
        images=torch.from_numpy(images).permute(0, 3, 1, 2),
        texts=texts,
        image_ids=torch.tensor([sample.image_id for sample in samples]),
        text_ids=first_text_ids + torch.tensor(drawn),
        captions=[list(sample.captions) for sample in samples],
        first_text_ids=first_text_ids,
        tokens=torch.empty(len(texts), 0, dtype=torch.int64) if tokenize is None else tokenize(texts),
    )


def forward_errors(deliveries: Iterable[Delivery]) -> Iterator[Delivery]:
    """Deliver the error that ends a stream as its last delivery, so that it leaves a worker as one line."""
    try:
        yield from deliveries
    except (UserError, ServerFailed) as error:
        yield Delivery(None, error=str(error), is_mistake=isinstance(error, UserError))
