"""Index the rows of a shard from its tar headers: where each image and each text is, without reading images."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bimodal_cl.data.shards.manifest import CAPTIONS_MODES, CaptionsMode, DamagedRule
from bimodal_cl.data.tar.headers import TarMembers, walk_tar
from bimodal_cl.data.tar.mapping import map_tar
from bimodal_cl.data.tar.samples import decode_key, group_members
from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.text_files import decode_text

NAME_KINDS = {
    "name_not_utf8": "bytes of a key that are not UTF-8 are shown as \\xNN",
}
NO_TEXT, TEXT_ELSEWHERE = -1, -2  # instead of an offset


@dataclass(frozen=True)
class ShardIndex:
    """The rows of one shard. A row is a sample with an image: a run of adjacent members with one key.

    Args:
        captions: how texts are split, as in the manifest.
        keys: the name of each row's members without the extension.
        image_ext: extension of each row's image, lower case, with the dot.
        image_offset, image_size: bytes, int64 ``[rows]``.
        text_offset, text_size: bytes, int64 ``[rows]``; the offset is -1 if the row has no text, and -2 if its text is
            not adjacent but elsewhere in the shard.
        caption_count: captions of each row, int64 ``[rows]``; 0 if it has no adjacent text or that is blank.
        counts: by kind, what the headers show: faults of :mod:`bimodal_cl.data.shards.faults` and ``NAME_KINDS``.
        left_out: counts, by extension, of the members that belong to no sample with an image.
        damage: what ends the tar early, for messages; "" for a whole tar.
    """

    captions: CaptionsMode
    keys: list[str]
    image_ext: list[str]
    image_offset: np.ndarray
    image_size: np.ndarray
    text_offset: np.ndarray
    text_size: np.ndarray
    caption_count: np.ndarray
    counts: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    damage: str = ""

    def __len__(self) -> int:
        return len(self.keys)


def split_captions(text: bytes, captions: CaptionsMode) -> list[str]:
    """Split a text into its captions, stripped: non-empty lines (``"lines"``) or the whole text (``"whole"``).

    The text is UTF-8, or UTF-16 with a byte order mark. Other bytes become U+FFFD, so that a bad byte changes no ids.
    """
    whole = decode_text(text, "replace").strip()
    if captions == "whole" or "\n" not in whole:
        return [whole] if whole else []
    return [line for line in map(str.strip, whole.split("\n")) if line]


def index_shard(
    path: str | Path,
    captions: CaptionsMode = "lines",
    damaged: DamagedRule = "refuse",
    name: str | None = None,
) -> ShardIndex:
    """Index the rows of a shard from its headers; only the short texts of the payloads are read.

    The key is the name up to its last dot, so ``a.b.jpg`` has the key ``a.b``. An extension that repeats starts a new
    row, so samples with the same key stay separate. If a row has several images the first is used, and if it has
    several texts the first of ``TEXT_EXTENSIONS``. Hidden files, links and folders are not rows.

    Args:
        path: the tar.
        captions: "lines" or "whole", as in the manifest.
        damaged: what to do with a tar that is truncated or holds garbage: "refuse" it, or "keep" the rows before the
            damage. The last of these is kept if it has its image and its text.
        name: of the shard, for messages; None for ``path``.

    Raises:
        UserError: the file cannot be opened, or (unless ``damaged`` is "keep") is empty, truncated or not a tar; the
            message names it and the byte offset.
    """
    if captions not in CAPTIONS_MODES:
        raise UserError(f"captions {captions!r}{did_you_mean(str(captions), CAPTIONS_MODES)}")
    name = str(path) if name is None else name
    with map_tar(path, name) as data:
        members = walk_tar(data)
        if members.damage is not None and damaged == "refuse":
            raise UserError(f"shard {name}: {members.damage.reason}")
        return _find_rows(members, data, captions)


def _find_rows(members: TarMembers, data: mmap.mmap | None, captions: CaptionsMode) -> ShardIndex:
    counts: Counter[str] = Counter()
    groups = group_members(members)
    named, images, texts = groups.named, groups.images, groups.texts
    if members.damage is not None:
        counts[members.damage.kind] = 1
    second_images, second_texts = groups.count_second()
    orphans = texts[images < 0]
    images, texts = images[images >= 0], texts[images >= 0]
    row_keys = [named.keys[image] for image in images.tolist()]
    orphan_keys = [named.keys[orphan] for orphan in orphans[orphans >= 0].tolist()]
    keys = _decode_keys(row_keys, counts)
    text_offset = _at(members.offset, named.member, texts, NO_TEXT)
    text_size = _at(members.size, named.member, texts, 0)
    counts["no_image"] = _mark_elsewhere(text_offset, row_keys, orphan_keys)
    caption_count = _count_captions(data, text_offset, text_size, captions)
    image_size = _at(members.size, named.member, images, 0)
    for kind, found in (
        ("duplicate_key", len(keys) - len(set(keys))),
        ("no_caption", np.count_nonzero(text_offset == NO_TEXT)),
        ("not_adjacent", np.count_nonzero(text_offset == TEXT_ELSEWHERE)),
        ("empty_caption", np.count_nonzero((text_offset >= 0) & (caption_count == 0))),
        ("zero_bytes", np.count_nonzero(image_size == 0)),
        ("dotted_key", np.count_nonzero(named.dotted[images])),
        ("second_image", second_images),
        ("second_text", second_texts),
    ):
        counts[kind] = int(found)
    return ShardIndex(
        captions=captions,
        keys=keys,
        image_ext=[named.endings[number] for number in named.extension[images].tolist()],
        image_offset=_at(members.offset, named.member, images, 0),
        image_size=image_size,
        text_offset=text_offset,
        text_size=text_size,
        caption_count=caption_count,
        counts={kind: count for kind, count in sorted(counts.items()) if count},
        left_out=groups.count_left_out(),
        damage=members.damage.reason if members.damage is not None else "",
    )


def _mark_elsewhere(text_offset: np.ndarray, keys: list[bytes], orphans: list[bytes]) -> int:
    """Mark the rows whose text is elsewhere in the shard, and return the number of texts that belong to no row."""
    if not orphans:
        return 0
    elsewhere, taken = set(orphans), set()
    for row in np.flatnonzero(text_offset == NO_TEXT).tolist():
        if keys[row] in elsewhere:
            text_offset[row] = TEXT_ELSEWHERE
            taken.add(keys[row])
    return sum(orphan not in taken for orphan in orphans)


def _at(values: np.ndarray, member: np.ndarray, places: np.ndarray, absent: int) -> np.ndarray:
    """Return the values of the members at some places, ``absent`` for place -1."""
    out = np.full(len(places), absent, dtype=np.int64)
    out[places >= 0] = values[member[places[places >= 0]]]
    return out


def _decode_keys(keys: list[bytes], counts: Counter[str]) -> list[str]:
    try:
        together = b"\0".join(keys).decode().split("\0")
    except UnicodeDecodeError:
        together = []
    if len(together) == len(keys):
        return together
    decoded = [decode_key(key) for key in keys]
    counts["name_not_utf8"] = sum(text.encode() != key for text, key in zip(decoded, keys, strict=True))
    return decoded


def _count_captions(
    data: mmap.mmap | None, offsets: np.ndarray, sizes: np.ndarray, captions: CaptionsMode
) -> np.ndarray:
    """Count the captions of each row's text, int64 ``[rows]``."""
    counts = np.zeros(len(offsets), dtype=np.int64)
    rows = np.flatnonzero((offsets >= 0) & (sizes > 0))
    if data is None or not len(rows):
        return counts
    # A text that begins with a visible character has a caption. In most shards every text is a single line.
    first = np.frombuffer(data, np.uint8)[offsets[rows]]
    plain = (first > ord(" ")) & (first < 127)
    counts[rows[plain]] = 1
    if captions == "whole":
        rows = rows[~plain]
    for row, start, size in zip(rows.tolist(), offsets[rows].tolist(), sizes[rows].tolist(), strict=True):
        if not counts[row] or data.find(b"\n", start, start + size) >= 0:
            counts[row] = len(split_captions(data[start : start + size], captions))
    return counts
