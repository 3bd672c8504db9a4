"""Random access to the rows of a data set by ``image_id``, wherever its shards are."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from bimodal_cl.data.shards.index import NO_TEXT, index_shard, split_captions
from bimodal_cl.data.shards.manifest import Manifest
from bimodal_cl.data.shards.open_shards import OpenShards
from bimodal_cl.data.shards.recent import Recent
from bimodal_cl.data.shards.row_table import RowTable, index_row_table, load_row_table
from bimodal_cl.data.storage.concurrency import run_concurrently
from bimodal_cl.data.storage.locations import redact
from bimodal_cl.data.storage.shard_file import ShardFile
from bimodal_cl.data.storage.storage import Storage
from bimodal_cl.errors import UserError

# An epoch's lanes stand in up to 128 shards at once; most systems let a process open 1,024 files.
MAX_OPEN_FILES = 256
MAX_INDEXED_ROWS = 2_000_000
# Range requests: rows nearer than this are fetched together, up to so many bytes a request; what is not read is kept
# up to so many bytes.
MAX_GAP = 2**17
MAX_REQUEST = 2**23
MAX_AHEAD = 2**28


class Row(NamedTuple):
    """One row as it is stored.

    Args:
        image: the encoded image.
        captions: all its captions, in order; may be empty.
        first_text_id: ``text_id`` of the first of them.
        caption_fault: why there are none: "no_caption", "empty_caption" or "not_adjacent"; "" where there are.
        not_utf8: whether bytes of the captions were not UTF-8, and became U+FFFD.
        extension: of the image's name, lower case, with the dot.
    """

    image: bytes
    captions: list[str]
    first_text_id: int
    caption_fault: str = ""
    not_utf8: bool = False
    extension: str = ""


class _Extent(NamedTuple):
    """Where a row's image and text lie: the first byte of both, and the byte after the last."""

    start: int
    stop: int
    image_id: int


@dataclass(frozen=True)
class _Span:
    """A row's bytes, image and text and what is between them, from byte ``start`` of a ranged shard on."""

    start: int
    data: bytes

    def read(self, offset: int, size: int) -> bytes:
        return self.data[offset - self.start : offset - self.start + size]


class RowReader:
    """Reads rows of a data set by ``image_id``. One a process: what it opens is not shared.

    A shard's row table is loaded, or made from the tar's headers, when its first row is asked for. Recently used
    tables are kept up to ``max_indexed_rows`` rows of all shards together (about 37 bytes each), open files up to
    ``max_open_files``.

    Args:
        manifest: of the data set.
        storage: reaches its shards; None: one with the default values.
        max_indexed_rows, max_open_files: as above, >= 1.
    """

    def __init__(
        self,
        manifest: Manifest,
        storage: Storage | None = None,
        max_indexed_rows: int = MAX_INDEXED_ROWS,
        max_open_files: int = MAX_OPEN_FILES,
    ) -> None:
        self.manifest = manifest
        self._storage = storage or Storage()
        self._offsets: list[int] = manifest.image_offsets.tolist()
        self._tables: Recent[RowTable] = Recent(max_indexed_rows, weigh=len)
        self._keys: Recent[list[str]] = Recent(1)
        self._files = OpenShards(manifest, self._storage, max_open_files, self._version_of)
        self._any_remote = any(self._files.remote)
        self._ahead: OrderedDict[int, _Span] = OrderedDict()

    def read(self, image_id: int) -> Row:
        """Read one row.

        Raises:
            UserError: ``image_id`` is outside the data set, or its shard is not what was indexed.
            ServerFailed: the shard's server failed too often.
            OSError: the disk failed.
        """
        shard, number = self.locate(image_id)
        span = self._ahead.pop(image_id, None) if self._ahead else None
        if span is not None:
            return self._take(span, self._tables.get(shard, self._load_table), number)
        file = self._files.get(shard)
        table = self._tables.get(shard, self._load_table)
        if not file.ranged:
            return self._take(file, table, number)
        start, stop, _ = _extent(table, number, image_id)
        if stop - start > MAX_REQUEST:  # the text is far away
            return self._take(file, table, number)
        return self._take(_Span(start, file.read(start, stop - start)), table, number)

    def read_captions(self, image_id: int) -> tuple[int, list[str]]:
        """Return the ``text_id`` of a row's first caption and all its captions; the image is not read.

        Raises:
            UserError, ServerFailed, OSError: as :meth:`read`.
        """
        shard, number = self.locate(image_id)
        table = self._tables.get(shard, self._load_table)
        first_text_id, offset = int(table.first_text_id[number]), int(table.text_offset[number])
        if offset < 0:
            return first_text_id, []
        text = self._files.get(shard).read(offset, int(table.text_size[number]))
        return first_text_id, split_captions(text, self.manifest.captions)

    def prefetch(self, image_ids: Iterable[int]) -> None:
        """Fetch at once what rows need that are read next: remote shards, or ranges of them. Local ones need nothing.

        Raises:
            UserError, ServerFailed: as :meth:`read`.
        """
        if not self._any_remote:
            return
        by_shard: dict[int, list[tuple[int, int]]] = {}
        for image_id in image_ids:
            shard, number = self.locate(image_id)
            if self._files.remote[shard] and image_id not in self._ahead:
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
                jobs += [partial(self._fetch, file, request) for request in _requests(table, rows)]
        run_concurrently(jobs, self._storage.connections)
        kept = sum(len(span.data) for span in self._ahead.values())
        while kept > MAX_AHEAD:
            kept -= len(self._ahead.popitem(last=False)[1].data)

    def first_text_ids(self, shard: int) -> np.ndarray:
        """The ``text_id`` of the first caption of each row of a shard, int64 ``[rows]``."""
        return self._tables.get(shard, self._load_table).first_text_id

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
        """Return an image's key, or "row N" of a remote shard that cannot be reached.

        May read the shard's headers again: meant for messages and reports.
        """
        shard, number = self.locate(image_id)
        try:
            return self._keys.get(shard, self._load_keys)[number]
        except (OSError, UserError):
            if not self._files.remote[shard]:
                raise
            return f"row {number}"

    def close(self) -> None:
        """Close all files."""
        self._files.close()
        self._tables.clear()
        self._keys.clear()
        self._ahead.clear()

    def _take(self, source: ShardFile | _Span, table: RowTable, number: int) -> Row:
        image = source.read(int(table.image_offset[number]), int(table.image_size[number]))
        first_text_id, extension = int(table.first_text_id[number]), table.extension(number)
        text_offset = int(table.text_offset[number])
        if text_offset < 0:
            fault = "no_caption" if text_offset == NO_TEXT else "not_adjacent"
            return Row(image, [], first_text_id, fault, False, extension)
        text = source.read(text_offset, int(table.text_size[number]))
        captions = split_captions(text, self.manifest.captions)
        fault = "" if captions else "empty_caption"
        return Row(image, captions, first_text_id, fault, not _is_utf8(text), extension)

    def _fetch(self, file: ShardFile, extents: list[_Extent]) -> None:
        first, last = extents[0].start, max(extent.stop for extent in extents)
        data = file.read(first, last - first)
        for start, stop, image_id in extents:
            self._ahead[image_id] = _Span(start, data[start - first : stop - first])

    def _load_table(self, shard: int) -> RowTable:
        table = load_row_table(self.manifest, shard)
        if table is not None:
            return table
        path = self._files.get(shard).path
        if path is None:
            raise UserError(
                f"shard {redact(self.manifest.location(shard))}: does not fit into the cache, and "
                f"{self.manifest.folder} has no row table of it; `{self.manifest.index_command}` makes one"
            )
        return index_row_table(self.manifest, shard, path)

    def _version_of(self, shard: int) -> str:
        """The version of a remote shard that its row table was made from; "" without one."""
        if shard not in self._tables:
            table = load_row_table(self.manifest, shard)
            if table is None:
                return ""
            self._tables.get(shard, lambda _: table)
        return self._tables.get(shard, self._load_table).version

    def _load_keys(self, shard: int) -> list[str]:
        path, name = self._files.get(shard).path, redact(self.manifest.location(shard))
        if path is None:
            raise UserError(f"shard {name}: is not on this machine")
        return index_shard(path, self.manifest.captions, self.manifest.damaged, name).keys


def _extent(table: RowTable, number: int, image_id: int) -> _Extent:
    places = [(int(table.image_offset[number]), int(table.image_size[number]))]
    if table.text_offset[number] >= 0:
        places.append((int(table.text_offset[number]), int(table.text_size[number])))
    start, stop = min(offset for offset, _ in places), max(offset + size for offset, size in places)
    return _Extent(start, stop, image_id)


def _requests(table: RowTable, rows: list[tuple[int, int]]) -> list[list[_Extent]]:
    """Group rows, (row, image id) each, into requests of neighbours; those that are too long are left to ``read``."""
    requests: list[list[_Extent]] = []
    last = 0
    for extent in sorted(_extent(table, *row) for row in rows):
        if extent.stop - extent.start > MAX_REQUEST:
            continue
        if requests and extent.start - last <= MAX_GAP and extent.stop - requests[-1][0].start <= MAX_REQUEST:
            requests[-1].append(extent)
            last = max(last, extent.stop)
        else:
            requests.append([extent])
            last = extent.stop
    return requests


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
