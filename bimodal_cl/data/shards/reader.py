"""Read the rows of one or more data sets by ``image_id``, wherever their shards are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from bimodal_cl.data.shards.index import NO_TEXT, index_shard, split_captions
from bimodal_cl.data.shards.lru_cache import LRUCache
from bimodal_cl.data.shards.manifest import CaptionsMode, Manifest
from bimodal_cl.data.shards.mixture import Mixture, open_mixture
from bimodal_cl.data.shards.open_shards import OpenShards
from bimodal_cl.data.shards.range_requests import FetchedRow, FetchedRows, find_extent, group_rows
from bimodal_cl.data.shards.row_table import RowTable, index_row_table, load_row_table
from bimodal_cl.data.storage.concurrency import run_concurrently
from bimodal_cl.data.storage.locations import redact
from bimodal_cl.data.storage.storage import Storage
from bimodal_cl.errors import UserError

# An epoch's lanes are in up to 128 shards at once; most systems let a process open 1,024 files.
MAX_OPEN_FILES = 256
MAX_INDEXED_ROWS = 2_000_000


class Row(NamedTuple):
    """One row as it is stored.

    Args:
        image: the encoded image.
        captions: all its captions, in order; may be empty.
        first_text_id: ``text_id`` of the first caption.
        caption_fault: why there are none: "no_caption", "empty_caption" or "not_adjacent"; "" if there are captions.
        not_utf8: whether bytes of the captions were not UTF-8 and became U+FFFD.
        extension: of the image's name, lower case, with the dot.
    """

    image: bytes
    captions: list[str]
    first_text_id: int
    caption_fault: str = ""
    not_utf8: bool = False
    extension: str = ""


class _Bytes(Protocol):
    def read(self, offset: int, size: int) -> bytes: ...


class RowReader:
    """Read rows by ``image_id``. Each process needs its own, since what it opens must not be shared.

    A shard's row table is loaded, or made from the tar's headers, when its first row is read. The most recently used
    tables are kept, up to ``max_indexed_rows`` rows in total (about 37 bytes each), and the most recently used files
    are kept open, up to ``max_open_files``.

    Args:
        data: the data sets; a manifest is a mixture of one.
        storage: opens their shards; None: one with the default values.
        max_indexed_rows, max_open_files: as above, >= 1.

    Attributes:
        mixture: the data sets.
    """

    def __init__(
        self,
        data: Mixture | Manifest,
        storage: Storage | None = None,
        max_indexed_rows: int = MAX_INDEXED_ROWS,
        max_open_files: int = MAX_OPEN_FILES,
    ) -> None:
        self.mixture = open_mixture(data)
        self._shards = self.mixture.shards
        self._storage = storage or Storage()
        self._tables: LRUCache[RowTable] = LRUCache(max_indexed_rows, weigh=len)
        self._keys: LRUCache[list[str]] = LRUCache(1)
        self._files = OpenShards(self._shards, self._storage, max_open_files, self._version_of)
        self._any_remote = any(self._files.remote)
        self._fetched = FetchedRows()

    def read(self, image_id: int) -> Row:
        """Read one row.

        Raises:
            UserError: ``image_id`` is outside the data, or its shard is not what was indexed.
            ServerFailed: the shard's server failed too often.
            OSError: the disk failed.
        """
        shard, number = self.mixture.locate(image_id)
        captions = self._shards[shard].manifest.captions
        fetched = self._fetched.pop(image_id)
        if fetched is not None:
            return _parse_row(fetched, self._tables.get(shard, self._load_table), number, captions)
        file = self._files.get(shard)
        table = self._tables.get(shard, self._load_table)
        if not file.ranged:
            return _parse_row(file, table, number, captions)
        extent = find_extent(table, number, image_id)
        if not extent.is_short:
            return _parse_row(file, table, number, captions)
        data = file.read(extent.start, extent.stop - extent.start)
        return _parse_row(FetchedRow(extent.start, data), table, number, captions)

    def read_captions(self, image_id: int) -> tuple[int, list[str]]:
        """Return the ``text_id`` of a row's first caption and all its captions, without reading the image.

        Raises:
            UserError, ServerFailed, OSError: as :meth:`read`.
        """
        shard, number = self.mixture.locate(image_id)
        table = self._tables.get(shard, self._load_table)
        first_text_id, offset = int(table.first_text_id[number]), int(table.text_offset[number])
        if offset < 0:
            return first_text_id, []
        text = self._files.get(shard).read(offset, int(table.text_size[number]))
        return first_text_id, split_captions(text, self._shards[shard].manifest.captions)

    def prefetch(self, image_ids: Iterable[int]) -> None:
        """Fetch concurrently what the next rows need from servers: whole shards, or ranges of them.

        Raises:
            UserError, ServerFailed: as :meth:`read`.
        """
        if not self._any_remote:
            return
        by_shard: dict[int, list[tuple[int, int]]] = {}
        for image_id in image_ids:
            shard, number = self.mixture.locate(image_id)
            if self._files.remote[shard] and image_id not in self._fetched:
                by_shard.setdefault(shard, []).append((number, image_id))
        self._files.prefetch(by_shard)
        jobs = []
        for shard, rows in by_shard.items():
            try:
                file = self._files.get(shard)
            except OSError:
                continue
            if file.ranged:
                table = self._tables.get(shard, self._load_table)
                jobs += [partial(self._fetched.fetch, file, request) for request in group_rows(table, rows)]
        run_concurrently(jobs, self._storage.connections)
        self._fetched.trim()

    def first_text_ids(self, shard: int) -> np.ndarray:
        """Return the ``text_id`` of the first caption of each row of a shard of the mixture, int64 ``[rows]``.

        Raises:
            UserError, ServerFailed: as :meth:`read`.
        """
        return self._tables.get(shard, self._load_table).first_text_id

    def describe(self, image_id: int, with_key: bool = True) -> tuple[str, str]:
        """Return the shard's name and the key of an image, for messages.

        Args:
            image_id: of the image.
            with_key: look up the key, which may read the shard's headers again; without it, or if a remote shard cannot
                be reached, the key is "row N".

        Raises:
            UserError, OSError: the headers of a local shard cannot be read.
        """
        shard, row = self.mixture.locate(image_id)
        return redact(self._shards[shard].entry.name), self._key(shard, row) if with_key else f"row {row}"

    def neighbours(self, image_id: int, near: bool) -> tuple[int, int]:
        """Return the first id and the number of images of an image's shard (``near``), or of its data set."""
        return self.mixture.neighbours(image_id, near)

    def folder(self, image_id: int) -> str:
        """Return the folder of an image's data set, for messages."""
        return str(self._shards[self.mixture.locate(image_id)[0]].manifest.folder)

    def close(self) -> None:
        """Close all files and drop all caches."""
        self._files.close()
        self._tables.clear()
        self._keys.clear()
        self._fetched.clear()

    def _key(self, shard: int, row: int) -> str:
        try:
            return self._keys.get(shard, self._load_keys)[row]
        except (OSError, UserError):
            if not self._files.remote[shard]:
                raise
            return f"row {row}"

    def _load_table(self, shard: int) -> RowTable:
        table = self._load_saved_table(shard)
        if table is not None:
            return table
        data_set, manifest, number = self._shards[shard]
        path = self._files.get(shard).path
        if path is None:
            raise UserError(
                f"shard {redact(manifest.location(number))}: does not fit into the cache, and "
                f"{manifest.folder} has no row table of it; `{manifest.index_command}` makes one"
            )
        return self._with_global_ids(index_row_table(manifest, number, path), data_set)

    def _load_saved_table(self, shard: int) -> RowTable | None:
        data_set, manifest, number = self._shards[shard]
        table = load_row_table(manifest, number)
        return None if table is None else self._with_global_ids(table, data_set)

    def _with_global_ids(self, table: RowTable, data_set: int) -> RowTable:
        earlier = int(self.mixture.text_offsets[data_set])
        return replace(table, first_text_id=table.first_text_id + earlier) if earlier else table

    def _version_of(self, shard: int) -> str:
        """Return the version of a remote shard that its row table was made from; "" without a table."""
        if shard not in self._tables:
            table = self._load_saved_table(shard)
            if table is None:
                return ""
            self._tables.get(shard, lambda _: table)
        return self._tables.get(shard, self._load_table).version

    def _load_keys(self, shard: int) -> list[str]:
        path, name = self._files.get(shard).path, redact(self._shards[shard].location)
        if path is None:
            raise UserError(f"shard {name}: is not on this machine")
        manifest = self._shards[shard].manifest
        return index_shard(path, manifest.captions, manifest.damaged, name).keys


def _parse_row(source: _Bytes, table: RowTable, number: int, captions: CaptionsMode) -> Row:
    """Read the image and the captions of a row from its shard, or from what was fetched of it."""
    image = source.read(int(table.image_offset[number]), int(table.image_size[number]))
    first_text_id, extension = int(table.first_text_id[number]), table.extension(number)
    text_offset = int(table.text_offset[number])
    if text_offset < 0:
        fault = "no_caption" if text_offset == NO_TEXT else "not_adjacent"
        return Row(image, [], first_text_id, fault, False, extension)
    text = source.read(text_offset, int(table.text_size[number]))
    found = split_captions(text, captions)
    return Row(image, found, first_text_id, "" if found else "empty_caption", not _is_utf8(text), extension)


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
