"""Stream batches of encoded features, in the order, with the captions and with the substitutes of the image stream.

A batch of features holds the ``image_ids`` and ``text_ids`` that :func:`bimodal_cl.data.pipeline.stream.open_stream`
delivers for the same seed, epoch and step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
import torch
import webdataset as wds

from bimodal_cl.data.features.tables import FeatureTables
from bimodal_cl.data.order.draws import Purpose, draw_below, draw_caption
from bimodal_cl.data.order.schedule import ScheduledBatch, TrainSchedule
from bimodal_cl.data.pipeline import stages
from bimodal_cl.data.pipeline.stages import Batch, Delivery, Stopwatch
from bimodal_cl.data.pipeline.stream import Stream
from bimodal_cl.data.shards.mixture import Mixture
from bimodal_cl.errors import UserError


def open_feature_stream(
    tables: FeatureTables,
    mixture: Mixture,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    start_step: int,
    num_epochs: int,
    shuffle_window: int,
    rank: int = 0,
    world_size: int = 1,
    max_bad_fraction: float = 0.01,
    pin_memory: bool = False,
) -> Stream:
    """Open the stream of one or more epochs of training on features, on one rank.

    ``batch.images`` and ``batch.tokens`` are the features, float16 ``[batch, width]``. Of several augmented views, one
    is drawn for each image by (seed, epoch, image id). Nothing is decoded, so this process reads them itself.

    Args:
        tables: the features of the data sets of `mixture`.
        mixture: the data.
        batch_size: pairs of a batch of this rank.
        seed, epoch, start_step, num_epochs, shuffle_window, rank, world_size, max_bad_fraction, pin_memory: as in
            :func:`~bimodal_cl.data.pipeline.stream.open_stream`.
    """
    steps = (num_epochs, start_step, batch_size)
    schedule = TrainSchedule(mixture, seed, epoch, *steps, rank, world_size, shuffle_window)
    draw = partial(draw_batches, tables=tables, mixture=mixture, seed=seed)

    def build_pipeline() -> wds.DataPipeline:
        return wds.DataPipeline(partial(stages.schedule_batches, schedule), draw, stages.forward_errors)

    return Stream(mixture, schedule, build_pipeline, 0, max_bad_fraction, pin_memory)


def draw_batches(
    scheduled: Iterable[ScheduledBatch], tables: FeatureTables, mixture: Mixture, seed: int
) -> Iterator[Delivery]:
    """Draw a caption and a view of each scheduled image, and read their features.

    Raises:
        UserError: no substitute is found for an image that cannot be used.
    """
    first_text_ids = tables.first_text_ids
    for batch in scheduled:
        stopwatch = Stopwatch()
        faults = [tables.unusable[each] for each in batch.image_ids if each in tables.unusable]
        image_ids = np.array([_usable(each, tables, mixture, seed, batch.epoch) for each in batch.image_ids])
        first = first_text_ids[image_ids]
        text_ids = first + draw_caption(first_text_ids[image_ids + 1] - first, seed, batch.epoch, image_ids)
        views = np.zeros_like(image_ids)
        if tables.first.views:
            views = 1 + draw_below(tables.first.views, Purpose.VIEW, seed, batch.epoch, image_ids)
        images, texts = tables.images(image_ids, views), tables.texts(text_ids)
        stopwatch.lap("read")
        drawn = Batch(
            epoch=batch.epoch,
            step=batch.step,
            images=torch.from_numpy(images),
            texts=[],
            image_ids=torch.from_numpy(image_ids),
            text_ids=torch.from_numpy(text_ids),
            captions=[],
            first_text_ids=torch.from_numpy(first),
            tokens=torch.from_numpy(texts),
        )
        stopwatch.lap("collate")
        yield Delivery(drawn, len(image_ids), tuple(faults), None, stopwatch.seconds)


def _usable(image_id: int, tables: FeatureTables, mixture: Mixture, seed: int, epoch: int) -> int:
    """Return an image, or its substitute as :func:`~bimodal_cl.data.pipeline.stages.fill_batches` draws it."""
    if image_id not in tables.unusable:
        return image_id
    for drawn in stages.draw_substitutes(partial(mixture.neighbours, image_id), seed, epoch, image_id):
        if drawn not in tables.unusable:
            return drawn
    raise UserError(
        f"{mixture}: all images drawn to replace image {mixture.describe(image_id)} are faulty; "
        "`bimodal-prep verify` names them all"
    )
