"""Save and load row tables: where the rows of a shard are, so that no epoch reads the headers of tars again.

``rows/<shard>.rows`` next to the manifest is one line of JSON (the header) and a raw array of ``ROW_TYPE``. A table is
only a cache: it is not used if it is missing, damaged, older or newer than its shard, or contradicts the manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from bimodal_cl.data.shards.index import ShardIndex, index_shard
from bimodal_cl.data.shards.manifest import CaptionsMode, Manifest, Shard
from bimodal_cl.data.storage.locations import is_remote, redact
from bimodal_cl.errors import UserError
from bimodal_cl.files.atomic import open_atomically
from bimodal_cl.files.image_formats import IMAGE_EXTENSIONS

ROWS_FOLDER = "rows"
VERSION = 1
RULES = 2  # version of the rules of indexing: 1 knew four image formats and only ``.txt``

# A row of a shard; ``first_text`` is the number of captions before it in the shard.
ROW_TYPE = np.dtype(
    [
        ("image_offset", "<u8"),
        ("image_size", "<u4"),
        ("text_offset", "<i8"),
        ("text_size", "<u4"),
        ("first_text", "<u4"),
        ("image_ext", "u1"),
    ]
)
_MAX_NAME = 200  # bytes; file systems allow 255, and the temporary name is longer


@dataclass(frozen=True)
class RowTable:
    """Where the rows of one shard are, in about 37 bytes per row.

    Args:
        image_offset, image_size: bytes, ``[rows]``.
        text_offset: bytes, ``[rows]``; -1 if the row has no text, -2 if its text is elsewhere in the shard.
        text_size: bytes, ``[rows]``; 0 if there is no text.
        first_text_id: ``text_id`` of each row's first caption, int64 ``[rows]``.
        image_ext: number of each image's extension in ``IMAGE_EXTENSIONS``, uint8 ``[rows]``.
        version: of the remote shard that the table was made from, as its server called it; "" if unknown.
    """

    image_offset: np.ndarray
    image_size: np.ndarray
    text_offset: np.ndarray
    text_size: np.ndarray
    first_text_id: np.ndarray
    image_ext: np.ndarray
    version: str = ""

    def __len__(self) -> int:
        return len(self.first_text_id)

    def extension(self, row: int) -> str:
        """Return the extension of a row's image, lower case, with the dot."""
        return IMAGE_EXTENSIONS[self.image_ext[row]]


@dataclass(frozen=True)
class TableHeader:
    """What a table records about its shard.

    Args:
        shard: the manifest's entry, without a hash.
        captions: how texts were split.
        counts: as :attr:`~bimodal_cl.data.shards.index.ShardIndex.counts`.
        left_out: as :attr:`~bimodal_cl.data.shards.index.ShardIndex.left_out`.
        version: of a remote shard, as its server called it; "" if unknown.
        rules: version of the rules of indexing; ``RULES`` is the current one.
    """

    shard: Shard
    captions: CaptionsMode
    counts: Mapping[str, int]
    left_out: Mapping[str, int]
    version: str = ""
    rules: int = RULES


def load_row_table(manifest: Manifest, shard: int) -> RowTable | None:
    """Load the table of shard number ``shard``; None if there is none that matches the manifest and the shard."""
    entry = manifest.shards[shard]
    found = _read(manifest.folder, entry.name)
    if found is None:
        return None
    header, rows = found
    same = (header.shard.num_images, header.shard.num_texts, header.shard.bytes, header.captions)
    if same != (entry.num_images, entry.num_texts, entry.bytes, manifest.captions):
        return None
    return _make_table(rows, int(manifest.text_offsets[shard]), header.version)


def index_row_table(manifest: Manifest, shard: int, path: Path) -> RowTable:
    """Make the table of shard number ``shard`` from the tar at ``path``.

    Raises:
        UserError: the tar is damaged, or its rows are not those of the manifest.
    """
    entry, name = manifest.shards[shard], redact(manifest.location(shard))
    index = index_shard(path, manifest.captions, manifest.damaged, name)
    num_texts = int(index.caption_count.sum())
    if (len(index), num_texts) != (entry.num_images, entry.num_texts):
        raise UserError(
            f"shard {name}: holds {len(index)} images and {num_texts} captions but the manifest says "
            f"{entry.num_images} and {entry.num_texts}; `{manifest.index_command}` indexes it as it is now"
        )
    return make_row_table(index, int(manifest.text_offsets[shard]))


def make_row_table(index: ShardIndex, first_text_id: int = 0) -> RowTable:
    """Make the table of an index; ``first_text_id`` is the ``text_id`` of the shard's first caption.

    Raises:
        OverflowError: a member of the shard is 4 GiB or larger.
    """
    return _make_table(_make_rows(index), first_text_id)


def save_row_table(folder: Path, shard: Shard, index: ShardIndex, version: str = "") -> Path | None:
    """Write the table of a shard by an atomic rename.

    The table of a local shard gets the shard's modification time, so that equal shards give equal files, and a table
    no longer matches once its shard has changed.

    Args:
        folder: of the manifest.
        shard: its entry in the manifest.
        index: of the shard, in the manifest's captions mode.
        version: of a remote shard.

    Returns:
        The path of the table; None, without a table, if a member has 4 GiB or more.
    """
    try:
        rows = _make_rows(index)
    except OverflowError:
        return None
    data = rows.tobytes()
    header = {
        "version": VERSION,
        "rules": RULES,
        "shard": shard.name,
        "bytes": shard.bytes,
        "captions": index.captions,
        "num_images": shard.num_images,
        "num_texts": shard.num_texts,
        "counts": dict(index.counts),
        "left_out": dict(index.left_out),
        "source": version,
        "crc32": zlib.crc32(data),
    }
    path = row_table_path(folder, shard.name)
    path.parent.mkdir(exist_ok=True)
    with open_atomically(path, flush=False) as file:  # a table that a power cut damaged fails its checksum
        file.write(json.dumps(header, ensure_ascii=True).encode() + b"\n")
        file.write(data)
        if not is_remote(shard.name):
            file.flush()
            modified = (folder / shard.name).stat().st_mtime_ns
            os.utime(file.fileno(), ns=(modified, modified))
    return path


def load_table_header(folder: Path, name: str) -> TableHeader | None:
    """Load the header of the table of the shard called ``name``; None if there is none that matches the shard."""
    found = _read(folder, name)
    return None if found is None else found[0]


def row_table_path(folder: Path, name: str) -> Path:
    """Return the path of the table of the shard that the manifest calls ``name``."""
    quoted = quote(name, safe="", errors="surrogateescape")
    if len(quoted) > _MAX_NAME:
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        quoted = f"{quoted[: _MAX_NAME - 33]}-{digest}"
    return folder / ROWS_FOLDER / f"{quoted}.rows"


def _make_rows(index: ShardIndex) -> np.ndarray:
    sizes = (index.image_size, index.text_size)
    if any(int(size.max(initial=0)) >= 2**32 for size in sizes):
        raise OverflowError("a row table has no room for a member of 4 GiB or more")
    rows = np.empty(len(index), dtype=ROW_TYPE)
    for column in ("image_offset", "image_size", "text_offset", "text_size"):
        rows[column] = getattr(index, column)
    rows["first_text"] = np.cumsum(index.caption_count) - index.caption_count
    numbers = {ext: number for number, ext in enumerate(IMAGE_EXTENSIONS)}
    rows["image_ext"] = [numbers[ext] for ext in index.image_ext]
    return rows


def _make_table(rows: np.ndarray, first_text_id: int, version: str = "") -> RowTable:
    return RowTable(
        image_offset=rows["image_offset"],
        image_size=rows["image_size"],
        text_offset=rows["text_offset"],
        text_size=rows["text_size"],
        first_text_id=rows["first_text"].astype(np.int64) + first_text_id,
        image_ext=rows["image_ext"],
        version=version,
    )


def _read(folder: Path, name: str) -> tuple[TableHeader, np.ndarray] | None:
    path = row_table_path(folder, name)
    try:
        if not is_remote(name) and not _same_time(path, folder / name):
            return None
        line, _, data = path.read_bytes().partition(b"\n")
        content = json.loads(line)
        if content["version"] != VERSION or content["shard"] != name or content["crc32"] != zlib.crc32(data):
            return None
        shard = Shard(name, content["num_images"], content["num_texts"], content["bytes"])
        counts, left_out = (_parse_counts(content.get(name, {})) for name in ("counts", "left_out"))
        rules = int(content.get("rules", 1))
        header = TableHeader(shard, content["captions"], counts, left_out, content["source"], rules)
        rows = np.frombuffer(data, dtype=ROW_TYPE)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return (header, rows) if len(rows) == shard.num_images else None


def _parse_counts(content: dict[str, Any]) -> dict[str, int]:
    return {str(kind): int(count) for kind, count in content.items()}


def _same_time(table: Path, shard: Path) -> bool:
    """Return whether both have the same modification time, in microseconds: some file systems do not store ns."""
    with suppress(OSError):
        return table.stat().st_mtime_ns // 1000 == shard.stat().st_mtime_ns // 1000
    return False
