"""Random access to the rows of a data set by ``image_id``: open shards and their indexes, kept while they are used."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from bimodal_cl.data.manifest import Manifest
from bimodal_cl.data.shard import ShardIndex, index_shard, open_shard, read_row_at
from bimodal_cl.errors import UserError

# An epoch's lanes stand in up to 128 shards at once; most systems let a process open 1,024 files.
MAX_OPEN_FILES = 256
MAX_INDEXED_ROWS = 2_000_000

_Value = TypeVar("_Value")


class Row(NamedTuple):
    """One row as it is stored.

    Args:
        image: the encoded image.
        captions: all its captions, in order; may be empty.
        first_text_id: ``text_id`` of the first of them.
    """

    image: bytes
    captions: list[str]
    first_text_id: int


@dataclass(frozen=True)
class _Rows:
    """A shard's index without its keys, which would be most of its memory: 48 bytes a row."""

    index: ShardIndex
    first_text_id: np.ndarray


class _Recent(Generic[_Value]):
    """The values used last, of a total weight of at most ``limit`` (or one value alone)."""

    def __init__(self, limit: int, weigh: Callable[[_Value], int], close: Callable[[_Value], None]) -> None:
        self._limit, self._weigh, self._close = limit, weigh, close
        self._values: OrderedDict[int, _Value] = OrderedDict()
        self._weight = 0

    def get(self, key: int, make: Callable[[int], _Value]) -> _Value:
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = make(key)
        self._weight += self._weigh(value)
        while self._weight > self._limit and len(self._values) > 1:
            self._drop()
        return value

    def _drop(self) -> None:
        _, value = self._values.popitem(last=False)
        self._weight -= self._weigh(value)
        self._close(value)

    def clear(self) -> None:
        while self._values:
            self._drop()


class RowReader:
    """Reads rows of a data set by ``image_id``. One a process: what it opens is not shared.

    A shard is indexed when its first row is asked for. Recently used indexes are kept up to ``max_indexed_rows`` rows
    of all shards together (about 48 bytes each), open files up to ``max_open_files``.
    """

    def __init__(
        self, manifest: Manifest, max_indexed_rows: int = MAX_INDEXED_ROWS, max_open_files: int = MAX_OPEN_FILES
    ) -> None:
        self.manifest = manifest
        self._offsets: list[int] = manifest.image_offsets.tolist()
        self._rows: _Recent[_Rows] = _Recent(max_indexed_rows, lambda rows: len(rows.first_text_id), lambda rows: None)
        self._keys: _Recent[list[str]] = _Recent(1, lambda keys: 1, lambda keys: None)
        self._files: _Recent[int] = _Recent(max_open_files, lambda descriptor: 1, os.close)

    def read(self, image_id: int) -> Row:
        """Read one row.

        Raises:
            UserError: ``image_id`` is outside the data set, or its shard is not what the manifest says.
            OSError: the disk failed.
        """
        shard, row = self.locate(image_id)
        rows = self._rows.get(shard, self._index)
        descriptor = self._files.get(shard, self._open)
        image, captions = read_row_at(descriptor, self.manifest.path(shard), rows.index, row)
        return Row(image, captions, int(rows.first_text_id[row]))

    def first_text_ids(self, shard: int) -> np.ndarray:
        """The ``text_id`` of the first caption of each row of a shard, int64 ``[rows]``."""
        return self._rows.get(shard, self._index).first_text_id

    def locate(self, image_id: int) -> tuple[int, int]:
        """Return an image's shard and its row in it.

        Raises:
            UserError: ``image_id`` is outside the data set.
        """
        if not 0 <= image_id < self._offsets[-1]:
            raise UserError(f"{self.manifest.folder}: image_id {image_id} is outside [0, {self._offsets[-1]})")
        shard = bisect_right(self._offsets, image_id) - 1
        return shard, image_id - self._offsets[shard]

    def key(self, image_id: int) -> str:
        """Return an image's key. May read the shard's headers again: meant for messages and reports."""
        shard, row = self.locate(image_id)
        return self._keys.get(shard, lambda n: index_shard(self.manifest.path(n), self.manifest.captions).keys)[row]

    def close(self) -> None:
        """Close all files."""
        self._files.clear()
        self._rows.clear()
        self._keys.clear()

    def _open(self, shard: int) -> int:
        return open_shard(self.manifest.path(shard))

    def _index(self, shard: int) -> _Rows:
        expected = self.manifest.shards[shard]
        index = index_shard(self.manifest.path(shard), self.manifest.captions)
        num_texts = int(index.caption_count.sum())
        if (len(index), num_texts) != (expected.num_images, expected.num_texts):
            raise UserError(
                f"shard {self.manifest.path(shard)}: holds {len(index)} images and {num_texts} captions but the "
                f"manifest says {expected.num_images} and {expected.num_texts}; "
                f"`bimodal-prep index {self.manifest.folder}` takes it as it is now"
            )
        earlier = np.cumsum(index.caption_count) - index.caption_count
        return _Rows(replace(index, keys=[], image_ext=[]), earlier + self.manifest.text_offsets[shard])
