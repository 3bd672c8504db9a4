"""Write a long-tailed subset of existing shards, whole samples unchanged, with a table of its concepts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bimodal_cl.cli.progress import progress
from bimodal_cl.data.shards.concepts import NO_CONCEPT, ImageConcepts
from bimodal_cl.data.shards.manifest import Manifest
from bimodal_cl.errors import UserError
from bimodal_cl.files.atomic import write_atomically

from ..staging import staged
from ..writing.keys import KeyMaker
from ..writing.tar_file import fits_header
from ..writing.writer import write_shards
from .naming import name_images
from .rows import StoredRow, iterate_rows
from .table import as_csv, count_lines
from .zipf import choose_images, kept_counts

if TYPE_CHECKING:
    from bimodal_cl.data.storage.storage import Storage

TABLE_NAME = "concepts.csv"
_HEAD = ("image_id", "key", "concept", "concept_count_before", "concept_count_after", "source_image_id")


@dataclass(frozen=True)
class ThinReport:
    """What thinning kept.

    Attributes:
        manifest: of the subset.
        names: of the concepts, the most frequent first.
        before, after: images of each concept, int64 ``[concepts]``.
        without: images that are left out because they have no concept.
    """

    manifest: Manifest
    names: Sequence[str]
    before: np.ndarray
    after: np.ndarray
    without: int

    def lines(self) -> Iterator[str]:
        """Yield the lines of the printed summary."""
        total = int(self.before.sum()) + self.without
        shards = f"{len(self.manifest.shards):,} shard{'s' if len(self.manifest.shards) > 1 else ''}"
        yield (
            f"{self.manifest.folder}: {self.manifest.num_images:,} of {total:,} images, "
            f"{self.manifest.num_texts:,} captions in {shards}; {TABLE_NAME} names the concept of each"
        )
        if self.without:
            yield f"  {self.without:,} images left out: no caption, or no concept"
        yield from count_lines(self.names, {"before": self.before, "after": self.after})


@dataclass(frozen=True)
class ThinOptions:
    """Which images stay, and how they are written.

    Args:
        field, concepts: what names the concepts, see :func:`name_images`.
        exponent, min_images, head: see :func:`kept_counts`.
        seed: see :func:`choose_images`.
        shard_size: samples per shard, >= 1.
    """

    field: str | None = None
    concepts: Path | None = None
    exponent: float = 1.0
    min_images: int = 1
    head: int | None = None
    seed: int = 0
    shard_size: int = 1000


def thin_shards(
    manifest: Manifest,
    storage: Storage,
    target: Path,
    options: ThinOptions,
    job: Mapping[str, object],
    overwrite: bool = False,
) -> ThinReport:
    """Write the images that :func:`choose_images` keeps as shards of their own; after an error, nothing is left there.

    Every sample keeps the bytes and the order of all its members, and its key if that is safe and occurs once. Samples
    stay in the order of the source.

    Args:
        manifest: of the source, which is not changed.
        storage: opens its shards.
        target: the folder to write.
        options: which images stay.
        job: the source and the flags as JSON values; an interrupted run of the same job may be repeated.
        overwrite: replace a finished folder.

    Raises:
        UserError: see :func:`staged`; or the source cannot be read, or is the target.
        OSError: the disk or a server failed.
    """
    if target.resolve() == manifest.folder.resolve():
        raise UserError(f"--to must differ from {manifest.folder}, which is not changed")
    with staged(target, job, [""], overwrite) as content:
        concepts = name_images(manifest, storage, options.field, options.concepts).concepts
        after = kept_counts(concepts.counts, options.exponent, options.min_images, options.head)
        stays = choose_images(concepts, after, options.seed)
        table: list[tuple[object, ...]] = []
        rows = (row for row in iterate_rows(manifest, storage) if stays[row.image_id])
        samples = _samples(progress(rows, int(stays.sum()), "images", "write"), concepts, after, table)
        shards = tuple(write_shards(samples, content, options.shard_size, manifest.captions))
        write_atomically(content / TABLE_NAME, as_csv(_HEAD, table))
        Manifest(content, manifest.captions, shards).save()
    without = int((concepts.of_image == NO_CONCEPT).sum())
    return ThinReport(Manifest.load(target), concepts.names, concepts.counts, after, without)


def _samples(
    rows: Iterable[StoredRow], concepts: ImageConcepts, after: np.ndarray, table: list[tuple[object, ...]]
) -> Iterator[tuple[str, dict[str, bytes], int]]:
    """Yield key, members and number of captions of rows; append the row of each in the table of concepts."""
    keys = KeyMaker()
    for row in rows:
        number = int(concepts.of_image[row.image_id])
        key, members = keys.make(row.key), row.members()
        for extension in members:
            if not fits_header(key + extension):
                raise UserError(f"shard {row.shard}: {row.key}{extension}: the name is too long for a plain tar")
        counts = int(concepts.counts[number]), int(after[number])
        table.append((len(table), key, concepts.names[number], *counts, row.image_id))
        yield key, members, len(row.captions)
