"""Single pairs by id, for reports: the picture and captions behind an ``image_id`` or a ``text_id``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bimodal_cl.data.decode import BadImage, decode_image
from bimodal_cl.data.manifest import Manifest
from bimodal_cl.data.rows import RowReader
from bimodal_cl.errors import UserError


@dataclass(frozen=True)
class Pair:
    """One image and its captions.

    Args:
        key: of the sample in its shard.
        image: RGB, upright.
        captions: in order; may be empty.
        first_text_id: ``text_id`` of the first of them.
    """

    key: str
    image: Image.Image
    captions: list[str]
    first_text_id: int


def read_pairs(folder: str | Path | Manifest, image_ids: Iterable[int] | np.ndarray) -> dict[int, Pair]:
    """Read the pairs of some image ids, whatever their order, each once.

    Raises:
        UserError: an id is outside the data set, an image cannot be decoded, or the manifest or a shard does not fit.
    """
    manifest = folder if isinstance(folder, Manifest) else Manifest.load(folder)
    reader = RowReader(manifest)
    pairs: dict[int, Pair] = {}
    try:
        for image_id in sorted({int(n) for n in image_ids}):
            row = reader.read(image_id)
            key = reader.key(image_id)
            try:
                image = decode_image(row.image)
            except BadImage as error:
                shard, _ = reader.locate(image_id)
                raise UserError(f"shard {manifest.path(shard)}, key {key}: {error.kind} ({error})") from None
            pairs[image_id] = Pair(key, image, row.captions, row.first_text_id)
    finally:
        reader.close()
    return pairs


def image_ids_of_texts(folder: str | Path | Manifest, text_ids: Iterable[int] | np.ndarray) -> np.ndarray:
    """Return the ``image_id`` to which each ``text_id`` belongs, int64 ``[texts]``.

    Raises:
        UserError: an id is outside the data set, or the manifest or a shard does not fit.
    """
    manifest = folder if isinstance(folder, Manifest) else Manifest.load(folder)
    wanted = np.asarray(text_ids if isinstance(text_ids, np.ndarray) else list(text_ids), dtype=np.int64)
    shards, _ = manifest.locate_texts(wanted)
    image_ids = np.empty_like(wanted)
    reader = RowReader(manifest)
    try:
        for shard in np.unique(shards).tolist():
            here = shards == shard
            # The last row that begins at or before the text: rows without captions share their follower's first id.
            rows = np.searchsorted(reader.first_text_ids(shard), wanted[here], side="right") - 1
            image_ids[here] = manifest.image_offsets[shard] + rows
    finally:
        reader.close()
    return image_ids
