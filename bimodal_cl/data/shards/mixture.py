"""Mix several data sets: global ids, and how many rows of each an epoch draws.

Shards, images and captions of all data sets are numbered consecutively, in the order in which the data sets are given,
so a data set that is added at the end changes no id of the others.

An epoch draws ``repeat_k * n_k`` rows of data set ``k``, whose size is ``n_k``. Weights are shares of an epoch that is
as long as the data sets together: ``repeat_k = w_k / sum(w) * sum(n) / n_k``. The integer part of a repeat draws every
row that often. The rest, a fraction ``f`` of the rows, is the next ``f n_k`` rows of a sequence that depends on the
seed only and that the epochs traverse in turn, so that each row has been drawn once after ``1 / f`` epochs.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeAlias

import numpy as np

from bimodal_cl.data.order.draws import Purpose, draw_permutation
from bimodal_cl.data.shards.manifest import Manifest, Shard
from bimodal_cl.errors import UserError


class MixtureShard(NamedTuple):
    """A shard of one of the data sets.

    Args:
        data_set: number of the data set.
        manifest: of the data set.
        number: of the shard in that manifest.
    """

    data_set: int
    manifest: Manifest
    number: int

    @property
    def entry(self) -> Shard:
        """The shard's entry in the manifest."""
        return self.manifest.shards[self.number]

    @property
    def location(self) -> str:
        """Where the shard is: a path, or a URL."""
        return self.manifest.location(self.number)


class Mixture:
    """Data sets that are used together. A single data set is a mixture of one.

    Args:
        manifests: of the data sets, at least one, in the order of their ids.
        repeats: how often an epoch draws the rows of each, > 0; None: once each.
        weights: shares of the epoch instead of ``repeats``, > 0.

    Attributes:
        manifests: as given.
        shards: of all data sets, in the order of ids.
        names: of the data sets in logs: the names of their folders, or whole paths if these are not unique.
        rows: images that an epoch draws from each.

    Raises:
        UserError: a number is out of range, there is no data set, or a folder is given twice.
    """

    def __init__(
        self,
        manifests: Sequence[Manifest],
        repeats: Sequence[float] | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        if not manifests:
            raise UserError("a mixture needs at least one data set")
        if repeats is not None and weights is not None:
            raise UserError("a mixture has repeats or weights, not both")
        self.manifests = tuple(manifests)
        self.shards = tuple(
            MixtureShard(data_set, manifest, number)
            for data_set, manifest in enumerate(manifests)
            for number in range(len(manifest.shards))
        )
        folders = [manifest.folder for manifest in manifests]
        short = [folder.resolve().name for folder in folders]
        self.names = tuple(short if len(set(short)) == len(short) else map(str, folders))
        resolved = [folder.resolve() for folder in folders]
        for number, folder in enumerate(resolved):
            if folder in resolved[:number]:
                raise UserError(f"{folders[number]}: comes twice; give it once, with a repeat")
        sizes = [manifest.num_images for manifest in manifests]
        for what, values in (("repeat", repeats), ("weight", weights)):
            for folder, value in zip(folders, values or (), strict=False):
                if not value > 0:
                    raise UserError(f"{folder}: {what} must be above 0, got {value}")
        if weights is not None:
            repeats = [
                weight / sum(weights) * sum(sizes) / max(size, 1) for weight, size in zip(weights, sizes, strict=True)
            ]
        self.rows = tuple(round(r * size) for r, size in zip(repeats or [1] * len(sizes), sizes, strict=True))
        for folder, rows, size in zip(folders, self.rows, sizes, strict=True):
            if rows == 0 and size:
                raise UserError(f"{folder}: its share of an epoch is less than one of its {size} images")

    @property
    def num_images(self) -> int:
        """Images of all data sets."""
        return int(self.image_offsets[-1])

    @property
    def num_texts(self) -> int:
        """Captions of all data sets."""
        return int(self.text_offsets[-1])

    @property
    def rows_per_epoch(self) -> int:
        """Images that an epoch draws, including those that are dropped at its end."""
        return sum(self.rows)

    @property
    def shard_faults(self) -> dict[str, int]:
        """Faults of shards that ``bimodal-prep index`` found, by kind."""
        return dict(sum((Counter(manifest.faults) for manifest in self.manifests), start=Counter[str]()))

    @property
    def digest(self) -> str:
        """Hexadecimal hash of what assigns ids to images and captions: the shards in order, by name, counts and size.

        Folders and servers do not count, so data may move.
        """
        digest = hashlib.sha256()
        for manifest in self.manifests:
            shards = [(PurePosixPath(s.name).name, s.num_images, s.num_texts, s.bytes) for s in manifest.shards]
            digest.update(json.dumps([manifest.captions, shards]).encode())
        return digest.hexdigest()[:16]

    @cached_property
    def image_offsets(self) -> np.ndarray:
        """The first ``image_id`` of every data set, and the total: int64 ``[sets + 1]``."""
        return np.cumsum([0, *(manifest.num_images for manifest in self.manifests)])

    @cached_property
    def text_offsets(self) -> np.ndarray:
        """The first ``text_id`` of every data set, and the total: int64 ``[sets + 1]``."""
        return np.cumsum([0, *(manifest.num_texts for manifest in self.manifests)])

    @cached_property
    def shard_image_offsets(self) -> np.ndarray:
        """The first ``image_id`` of every shard, and the total: int64 ``[shards + 1]``."""
        return np.cumsum([0, *(shard.entry.num_images for shard in self.shards)], dtype=np.int64)

    @cached_property
    def shard_text_offsets(self) -> np.ndarray:
        """The first ``text_id`` of every shard, and the total: int64 ``[shards + 1]``."""
        return np.cumsum([0, *(shard.entry.num_texts for shard in self.shards)], dtype=np.int64)

    @cached_property
    def _shard_starts(self) -> list[int]:
        return self.shard_image_offsets.tolist()

    def __str__(self) -> str:
        return ", ".join(str(manifest.folder) for manifest in self.manifests)

    def locate(self, image_id: int) -> tuple[int, int]:
        """Return the number of an image's shard, and the image's row in it.

        Raises:
            UserError: the id is outside all data sets.
        """
        starts = self._shard_starts
        if not 0 <= image_id < starts[-1]:
            raise UserError(f"{self}: image_id {image_id} is outside [0, {starts[-1]})")
        shard = bisect_right(starts, image_id) - 1
        return shard, image_id - starts[shard]

    def describe(self, image_id: int) -> str:
        """Return an image's id with its shard and row, for messages."""
        shard, row = self.locate(image_id)
        return f"{image_id} ({self.shards[shard].entry.name}, row {row})"

    def shard_extent(self, shard: int) -> tuple[int, int]:
        """Return the first id and the number of the images of a shard."""
        first, after = self._shard_starts[shard : shard + 2]
        return first, after - first

    def set_extent(self, data_set: int) -> tuple[int, int]:
        """Return the first id and the number of the images of a data set."""
        first, after = self.image_offsets[data_set : data_set + 2].tolist()
        return first, after - first

    def neighbours(self, image_id: int, near: bool) -> tuple[int, int]:
        """Return the first id and the number of images of an image's shard (``near``), or of its data set."""
        shard, _ = self.locate(image_id)
        return self.shard_extent(shard) if near else self.set_extent(self.shards[shard].data_set)

    def count(self, image_ids: np.ndarray) -> Counter[str]:
        """Count the images, int64 ``[batch]``, of each data set, by name."""
        sets = np.searchsorted(self.image_offsets, image_ids, side="right") - 1
        counts = np.bincount(sets, minlength=len(self.names)).tolist()
        return Counter(dict(zip(self.names, counts, strict=True)))

    def segments(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what an epoch draws as runs of consecutive image ids: first ids and lengths, int64 ``[runs]`` each.

        A run is a shard, or a part of one if an epoch draws a fraction of a data set.
        """
        firsts, sizes = [], []
        for number, (manifest, rows) in enumerate(zip(self.manifests, self.rows, strict=True)):
            shards = np.diff(manifest.image_offsets)
            first = manifest.image_offsets[:-1] + self.image_offsets[number]
            whole, rest = divmod(rows, max(manifest.num_images, 1))
            firsts += [first] * whole
            sizes += [shards] * whole
            if rest:
                order = draw_permutation(len(shards), Purpose.FRACTION, seed, number)
                begin = epoch * rest % manifest.num_images
                for part in _cut(first[order], shards[order], begin, rest):
                    firsts.append(part[0])
                    sizes.append(part[1])
        return np.concatenate(firsts), np.concatenate(sizes)


def _cut(first: np.ndarray, sizes: np.ndarray, begin: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut ``count`` rows from row ``begin`` on out of runs that form a ring."""
    starts = np.cumsum(sizes) - sizes
    total = int(sizes.sum())
    pieces = []
    for low, high in ((begin, min(begin + count, total)), (0, begin + count - total)):
        left = np.maximum(starts, low)
        length = np.minimum(starts + sizes, high) - left
        taken = length > 0
        pieces.append(((first + left - starts)[taken], length[taken]))
    return pieces


Folders: TypeAlias = "str | Path | Manifest | Mixture"


def open_mixture(folder: Folders) -> Mixture:
    """Return a mixture as it is, or a mixture of one data set, which is loaded if only its folder is given.

    Raises:
        UserError: the manifest cannot be loaded.
    """
    if isinstance(folder, Mixture):
        return folder
    return Mixture([folder if isinstance(folder, Manifest) else Manifest.load(folder)])
