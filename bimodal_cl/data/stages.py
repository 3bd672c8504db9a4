"""The stages between the plan and the batches: list rows, read and decode them, transform, batch. Each a generator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info

from bimodal_cl.data.decode import BadImage, decode_image
from bimodal_cl.data.draws import Purpose, draw_below
from bimodal_cl.data.faults import Fault
from bimodal_cl.data.manifest import Manifest
from bimodal_cl.data.rows import Row, RowReader
from bimodal_cl.errors import UserError

SAME_SHARD_DRAWS = 16
ANY_SHARD_DRAWS = 16


@dataclass(frozen=True)
class Batch:
    """Pairs of one step on one rank, in the plan's order.

    Args:
        step: which global batch of the epoch it is part of.
        images: uint8 ``[batch, 3, height, width]``.
        texts: the drawn caption of each image (evaluation: its first).
        image_ids, text_ids: int64 ``[batch]``.
        captions: all captions of each image.
        first_text_ids: int64 ``[batch]``, the ``text_id`` of each image's first caption.
    """

    step: int
    images: Tensor
    texts: list[str]
    image_ids: Tensor
    text_ids: Tensor
    captions: list[list[str]]
    first_text_ids: Tensor

    def __len__(self) -> int:
        return len(self.texts)

    def pin_memory(self) -> Batch:
        """Return it with the images in page-locked memory."""
        return replace(self, images=self.images.pin_memory())


@dataclass(frozen=True)
class Delivery:
    """What a worker hands over for one batch.

    Args:
        batch: ``None`` where no sample of it is good (evaluation only), or where ``error`` is set.
        samples: rows that the plan has for it.
        faults: among those rows.
        error: the user's mistake that ended the worker; exceptions do not cross processes as one line.
    """

    batch: Batch | None
    samples: int = 0
    faults: tuple[Fault, ...] = ()
    error: str | None = None

    def pin_memory(self) -> Delivery:
        """Return it with the images in page-locked memory."""
        return replace(self, batch=self.batch.pin_memory()) if self.batch else self


@dataclass(frozen=True)
class Slot:
    """A row of a batch, as planned: ``last`` of its batch or not."""

    step: int
    image_id: int
    last: bool


@dataclass(frozen=True)
class Sample:
    """A slot and what fills it.

    Args:
        slot: the planned row.
        image_id: of the image that fills it: the planned one's, or a substitute's. -1 where nothing does.
        image: RGB image, then uint8 ``[3, height, width]``; ``None`` where nothing fills the slot.
        captions, first_text_id: of that image.
        fault: of the planned image.
    """

    slot: Slot
    image_id: int = -1
    image: Image.Image | Tensor | None = None
    captions: tuple[str, ...] = ()
    first_text_id: int = -1
    fault: Fault | None = None


def list_rows(image_ids: Callable[[int], np.ndarray], start_step: int, steps: int) -> Iterator[Slot]:
    """List the rows of the batches from ``start_step`` on: all of them, or this worker's, who takes every n-th batch.

    A loader asks its workers in turn, so their batches arrive in the plan's order.
    """
    worker = get_worker_info()
    first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
    for step in range(start_step + first, steps, stride):
        ids = image_ids(step).tolist()
        for row, image_id in enumerate(ids):
            yield Slot(step, image_id, last=row == len(ids) - 1)


def read_rows(
    slots: Iterable[Slot], manifest: Manifest, seed: int, epoch: int, max_pixels: int, substitute: bool
) -> Iterator[Sample]:
    """Read and decode each slot's image and captions; fill a faulty one's slot by the stated rule, or leave it empty.

    The rule: the k-th attempt (from 0) takes row ``draw_below(rows, SUBSTITUTE, seed, epoch, image_id, k)`` of the
    same shard, from k = 16 on that image of the whole data set, until one is good. So the place is filled alike
    whoever reads it, and its ids are the substitute's own.

    Raises:
        UserError: a shard is not what the manifest says, or 32 attempts find nothing good.
    """
    reader = RowReader(manifest)
    try:
        for slot in slots:
            sample = _read_sample(reader, slot, slot.image_id, max_pixels)
            if sample.fault is not None and substitute:
                sample = replace(_find_substitute(reader, slot, seed, epoch, max_pixels), fault=sample.fault)
            yield sample
    finally:
        reader.close()


def _read_sample(reader: RowReader, slot: Slot, image_id: int, max_pixels: int) -> Sample:
    try:
        row: Row = reader.read(image_id)
        if not row.captions:
            return Sample(slot, fault=_describe(reader, image_id, "no_caption", "no text, or a blank one"))
        image = decode_image(row.image, max_pixels)
    except BadImage as error:
        return Sample(slot, fault=_describe(reader, image_id, error.kind, str(error)))
    except OSError as error:
        return Sample(slot, fault=_describe(reader, image_id, "unreadable", str(error)))
    return Sample(slot, image_id, image, tuple(row.captions), row.first_text_id)


def _describe(reader: RowReader, image_id: int, kind: str, reason: str) -> Fault:
    shard, _ = reader.locate(image_id)
    return Fault(kind, reader.manifest.shards[shard].name, reader.key(image_id), image_id, reason)


def _find_substitute(reader: RowReader, slot: Slot, seed: int, epoch: int, max_pixels: int) -> Sample:
    manifest = reader.manifest
    shard, _ = reader.locate(slot.image_id)
    for attempt in range(SAME_SHARD_DRAWS + ANY_SHARD_DRAWS):
        near = attempt < SAME_SHARD_DRAWS
        first = int(manifest.image_offsets[shard]) if near else 0
        rows = manifest.shards[shard].num_images if near else manifest.num_images
        row = int(draw_below(rows, Purpose.SUBSTITUTE, seed, epoch, slot.image_id, attempt)[0])
        sample = _read_sample(reader, slot, first + row, max_pixels)
        if sample.fault is None:
            return sample
    raise UserError(
        f"{manifest.folder}: {SAME_SHARD_DRAWS + ANY_SHARD_DRAWS} images drawn to replace image {slot.image_id} of "
        f"shard {manifest.shards[shard].name}, key {reader.key(slot.image_id)}, are all faulty; the last: "
        f"{sample.fault}; `bimodal-prep verify {manifest.folder}` names them all"
    )


def transform_rows(samples: Iterable[Sample], transform: Callable[[Image.Image, int], Tensor]) -> Iterator[Sample]:
    """Turn each image into the pixels of a batch: ``transform(image, image_id)``; empty slots pass through."""
    for sample in samples:
        if isinstance(sample.image, Image.Image):
            yield replace(sample, image=transform(sample.image, sample.image_id))
        else:
            yield sample


def batch_rows(samples: Iterable[Sample], draw_caption: Callable[[int, int], int]) -> Iterator[Delivery]:
    """Put the samples of a step together, with caption number ``draw_caption(image_id, count)`` of each image."""
    pending: list[Sample] = []
    for sample in samples:
        pending.append(sample)
        if sample.slot.last:
            faults = tuple(sample.fault for sample in pending if sample.fault is not None)
            good = [sample for sample in pending if sample.image is not None]
            batch = _build_batch(sample.slot.step, good, draw_caption) if good else None
            yield Delivery(batch, len(pending), faults)
            pending = []


def _build_batch(step: int, samples: list[Sample], draw_caption: Callable[[int, int], int]) -> Batch:
    drawn = [draw_caption(sample.image_id, len(sample.captions)) for sample in samples]
    first_text_ids = torch.tensor([sample.first_text_id for sample in samples])
    # Stacked by numpy for the reason that `to_tensor` gives.
    images = np.stack([sample.image.numpy() for sample in samples if isinstance(sample.image, Tensor)])
    return Batch(
        step=step,
        images=torch.from_numpy(images),
        texts=[sample.captions[n] for sample, n in zip(samples, drawn, strict=True)],
        image_ids=torch.tensor([sample.image_id for sample in samples]),
        text_ids=first_text_ids + torch.tensor(drawn),
        captions=[list(sample.captions) for sample in samples],
        first_text_ids=first_text_ids,
    )


def forward_errors(deliveries: Iterable[Delivery]) -> Iterator[Delivery]:
    """Hand the user's mistakes over as a last delivery, so that they stay one line on the way out of a worker."""
    try:
        yield from deliveries
    except UserError as error:
        yield Delivery(None, error=str(error))
