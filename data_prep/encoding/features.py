"""Encode the images and captions of one data set into memory-mapped tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from bimodal_cl.cli.progress import progress
from bimodal_cl.data import Batch, Manifest, Stream, open_stream
from bimodal_cl.data.features.manifest import (
    FIRST_TEXTS_FILE,
    IMAGES_FILE,
    MOMENTS_FILE,
    TEXTS_FILE,
    FeatureManifest,
)
from bimodal_cl.data.pairs import find_first_text_ids
from bimodal_cl.data.shards.faults import Fault
from bimodal_cl.data.shards.mixture import Mixture
from bimodal_cl.errors import UserError
from bimodal_cl.models.features.towers import LockedTowers
from bimodal_cl.scoring.encode_once import (
    Encoder,
    distinct_images,
    distinct_texts,
    evaluation_mode,
    pixel_key,
    text_items,
)

_IMAGES_AT_ONCE = 512  # equal images and captions among so many are encoded once
_LARGEST = float(np.finfo(np.float16).max)


def encode_set(
    manifest: Manifest, towers: LockedTowers, job: FeatureManifest, folder: Path, num_workers: int, batch_size: int
) -> FeatureManifest:
    """Write the tables of one data set.

    Args:
        manifest: of the shards.
        towers: what encodes them.
        job: what the features are to be; ``job.folder`` is where they will be.
        folder: where to write; it exists.
        num_workers: processes that decode images.
        batch_size: images decoded at once.

    Returns:
        The description of what was written, with `folder` and the images that cannot be used.

    Raises:
        UserError: the shards are not what their manifest says, or features are not finite in float16.
    """
    first_text_ids = find_first_text_ids(manifest)
    np.save(folder / FIRST_TEXTS_FILE, first_text_ids)
    shape = (1 + job.views, job.num_images, job.image_width)
    images = np.lib.format.open_memmap(folder / IMAGES_FILE, "w+", np.float16, shape)
    texts = np.lib.format.open_memmap(folder / TEXTS_FILE, "w+", np.float16, (job.num_texts, job.text_width))
    seen = np.zeros(shape[:2], dtype=bool)
    moments = {"image": _Moments(job.image_width), "text": _Moments(job.text_width)}
    faults: dict[int, Fault] = {}
    for view in range(1 + job.views):
        stream = _open(manifest, towers, job, view, num_workers, batch_size)
        what = f"{job.folder.name}: images and captions" if view == 0 else f"{job.folder.name}: view {view}/{job.views}"
        for batches in _chunks(progress(stream, job.num_images, "images", what, len)):
            ids, rows = _encode_images(towers, batches, manifest)
            images[view, ids] = rows
            moments["image"].add(rows)
            seen[view, ids] = True
            if view == 0:
                text_ids, rows = _encode_texts(towers, batches)
                texts[text_ids] = rows
                moments["text"].add(rows)
        faults |= {fault.image_id: fault for fault in stream.report().examples}
    images.flush()
    texts.flush()
    values: dict[str, Any] = {k: v for name, one in moments.items() for k, v in one.values(name).items()}
    np.savez(folder / MOMENTS_FILE, **values)
    unusable = [faults.get(each) or _unnamed(manifest, each) for each in np.flatnonzero(~seen.all(0)).tolist()]
    return replace(job, folder=folder, unusable=tuple(unusable))


class _Moments:
    """Sums of rows and of their squares, in float64."""

    def __init__(self, width: int) -> None:
        self._count, self._sum, self._squares = 0, np.zeros(width), np.zeros(width)

    def add(self, rows: np.ndarray) -> None:
        exact = rows.astype(np.float64)
        self._count += len(rows)
        self._sum += exact.sum(0)
        self._squares += (exact**2).sum(0)

    def values(self, name: str) -> dict[str, np.ndarray]:
        mean = self._sum / max(self._count, 1)
        variance = np.maximum(self._squares / max(self._count, 1) - mean**2, 0)
        return {f"{name}_mean": mean, f"{name}_variance": variance}


def _open(
    manifest: Manifest, towers: LockedTowers, job: FeatureManifest, view: int, num_workers: int, batch_size: int
) -> Stream:
    transform = towers.encoder.transform
    return open_stream(
        manifest,
        batch_size,
        transform.image_size,
        seed=job.seed,
        num_workers=num_workers,
        train=False,
        eval_transform=transform,
        augment_epoch=view - 1 if view else None,
        scale=job.crop_scale,
        flip=job.flip,
        interpolation=transform.interpolation,
        max_bad_fraction=1.0,  # training replaces what cannot be used, and stops where it is too much
    )


def _chunks(batches: Iterator[Batch]) -> Iterator[list[Batch]]:
    kept: list[Batch] = []
    for batch in batches:
        kept.append(batch)
        if sum(map(len, kept)) >= _IMAGES_AT_ONCE:
            yield kept
            kept = []
    if kept:
        yield kept


def _encode_images(towers: LockedTowers, batches: list[Batch], manifest: Manifest) -> tuple[np.ndarray, np.ndarray]:
    with evaluation_mode(towers.encoder) as device:
        inputs = distinct_images(cast(Encoder, towers), device, torch.device("cpu"))
        for batch in batches:
            for pixels in batch.images:
                inputs.add(pixel_key(pixels), pixels)
        rows = inputs.features().numpy()
    ids = np.concatenate([batch.image_ids.numpy() for batch in batches])
    return ids, _to_half(rows, lambda row: f"{manifest.folder}: image {Mixture([manifest]).describe(int(ids[row]))}")


def _encode_texts(towers: LockedTowers, batches: list[Batch]) -> tuple[np.ndarray, np.ndarray]:
    captions = [caption for batch in batches for each in batch.captions for caption in each]
    with evaluation_mode(towers.encoder) as device:
        inputs = distinct_texts(cast(Encoder, towers), device, torch.device("cpu"))
        items = text_items(towers.encoder, captions)
        by_length = torch.argsort(towers.text_lengths(torch.stack([tokens for _, tokens in items])), stable=True)
        for number in by_length.tolist():
            inputs.add(*items[number])
        rows = inputs.features()[torch.argsort(by_length)].numpy()
    ids = [
        np.arange(first, first + len(each))
        for batch in batches
        for first, each in zip(batch.first_text_ids.tolist(), batch.captions, strict=True)
    ]
    return np.concatenate(ids), _to_half(rows, lambda row: f"the caption {captions[row]!r}")


def _to_half(rows: np.ndarray, describe: Callable[[int], str]) -> np.ndarray:
    """Round to float16, and refuse what is not finite there."""
    bad = ~(np.abs(rows) <= _LARGEST).all(axis=1)
    if bad.any():
        raise UserError(
            f"{describe(int(np.flatnonzero(bad)[0]))}: its feature is not finite in float16, whose largest number is "
            f"{_LARGEST:,.0f}: these towers cannot be encoded"
        )
    return rows.astype(np.float16)


def _unnamed(manifest: Manifest, image_id: int) -> Fault:
    shard, row = Mixture([manifest]).locate(image_id)
    reason = "`bimodal-prep verify` says why"
    return Fault("unusable", manifest.shards[shard].name, f"row {row}", image_id, reason)
