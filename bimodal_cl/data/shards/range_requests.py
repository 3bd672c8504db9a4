"""Group the rows of a remote shard into range requests, and keep what they fetched until it is read."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from bimodal_cl.data.shards.row_table import RowTable
from bimodal_cl.data.storage.shard_file import ShardFile

# Rows closer than this are fetched together, up to so many bytes per request; rows that were fetched and not read yet
# are kept up to so many bytes.
MAX_GAP = 2**17
MAX_REQUEST = 2**23
MAX_AHEAD = 2**28


class Extent(NamedTuple):
    """Where the image and the text of a row are: the first byte of both, and the byte after the last."""

    start: int
    stop: int
    image_id: int

    @property
    def is_short(self) -> bool:
        """Whether one request can fetch image and text together; otherwise the text is far from the image."""
        return self.stop - self.start <= MAX_REQUEST


@dataclass(frozen=True)
class FetchedRow:
    """The bytes of a row, image and text and what is between them.

    Args:
        start: offset of the first byte in the shard.
        data: the bytes.
    """

    start: int
    data: bytes

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes at ``offset`` of the shard."""
        return self.data[offset - self.start : offset - self.start + size]


def find_extent(table: RowTable, row: int, image_id: int) -> Extent:
    """Return where a row's image and text are in its shard."""
    places = [(int(table.image_offset[row]), int(table.image_size[row]))]
    if table.text_offset[row] >= 0:
        places.append((int(table.text_offset[row]), int(table.text_size[row])))
    start, stop = min(offset for offset, _ in places), max(offset + size for offset, size in places)
    return Extent(start, stop, image_id)


def group_rows(table: RowTable, rows: list[tuple[int, int]]) -> list[list[Extent]]:
    """Group rows, (row, image id) each, into requests for neighbours; rows that are not short are left out."""
    requests: list[list[Extent]] = []
    last = 0
    for extent in sorted(find_extent(table, *row) for row in rows):
        if not extent.is_short:
            continue
        if requests and extent.start - last <= MAX_GAP and extent.stop - requests[-1][0].start <= MAX_REQUEST:
            requests[-1].append(extent)
            last = max(last, extent.stop)
        else:
            requests.append([extent])
            last = extent.stop
    return requests


class FetchedRows:
    """The rows that were fetched ahead, by image id, up to ``MAX_AHEAD`` bytes."""

    def __init__(self) -> None:
        self._rows: OrderedDict[int, FetchedRow] = OrderedDict()

    def __contains__(self, image_id: int) -> bool:
        return image_id in self._rows

    def pop(self, image_id: int) -> FetchedRow | None:
        """Remove and return a row; None if it was not fetched."""
        return self._rows.pop(image_id, None) if self._rows else None

    def fetch(self, file: ShardFile, extents: list[Extent]) -> None:
        """Fetch some rows by one request. Several threads may do so at once."""
        first, last = extents[0].start, max(extent.stop for extent in extents)
        data = file.read(first, last - first)
        for start, stop, image_id in extents:
            self._rows[image_id] = FetchedRow(start, data[start - first : stop - first])

    def trim(self) -> None:
        """Drop the oldest rows beyond the limit; they will be fetched again."""
        kept = sum(len(row.data) for row in self._rows.values())
        while kept > MAX_AHEAD:
            kept -= len(self._rows.popitem(last=False)[1].data)

    def clear(self) -> None:
        """Drop all rows."""
        self._rows.clear()
