"""Read single pairs by ``image_id``, and find the image of a ``text_id``, for reports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from bimodal_cl.data.images.decode import BadImage, decode_image
from bimodal_cl.data.shards.mixture import Folders, open_mixture
from bimodal_cl.data.shards.reader import RowReader
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


def read_pairs(folder: Folders, image_ids: Iterable[int] | np.ndarray) -> dict[int, Pair]:
    """Read the pairs of some image ids, in any order, each once.

    Raises:
        UserError: an id is outside the data, an image cannot be decoded, or the manifest does not fit a shard.
    """
    reader = RowReader(open_mixture(folder))
    wanted = sorted({int(n) for n in image_ids})
    pairs: dict[int, Pair] = {}
    try:
        reader.prefetch(wanted)
        for image_id in wanted:
            row = reader.read(image_id)
            shard, key = reader.describe(image_id)
            try:
                image = decode_image(row.image)
            except BadImage as error:
                place = f"{reader.folder(image_id)}: shard {shard}, key {key}"
                raise UserError(f"{place}: {error.kind} ({error})") from None
            pairs[image_id] = Pair(key, image, row.captions, row.first_text_id)
    finally:
        reader.close()
    return pairs


def find_first_text_ids(folder: Folders) -> np.ndarray:
    """Return the ``text_id`` of each image's first caption, and the number of texts: int64 ``[images + 1]``.

    Raises:
        UserError: the manifest does not fit a shard.
    """
    mixture = open_mixture(folder)
    reader = RowReader(mixture)
    try:
        parts = [reader.first_text_ids(shard) for shard in range(len(mixture.shards))]
    finally:
        reader.close()
    return np.concatenate([*parts, [mixture.num_texts]]).astype(np.int64)


def image_ids_of_texts(folder: Folders, text_ids: Iterable[int] | np.ndarray) -> np.ndarray:
    """Return the ``image_id`` to which each ``text_id`` belongs, int64 ``[texts]``.

    Raises:
        UserError: an id is outside the data, or the manifest does not fit a shard.
    """
    mixture = open_mixture(folder)
    wanted = np.asarray(text_ids if isinstance(text_ids, np.ndarray) else list(text_ids), dtype=np.int64)
    outside = (wanted < 0) | (wanted >= mixture.num_texts)
    if outside.any():
        raise UserError(f"{mixture}: text_id {wanted[outside][0]} is outside [0, {mixture.num_texts})")
    shards = np.searchsorted(mixture.shard_text_offsets, wanted, side="right") - 1
    image_ids = np.empty_like(wanted)
    reader = RowReader(mixture)
    try:
        for shard in np.unique(shards).tolist():
            here = shards == shard
            # The last row that begins at or before the text: a row without captions has the first id of the next one.
            rows = np.searchsorted(reader.first_text_ids(shard), wanted[here], side="right") - 1
            image_ids[here] = mixture.shard_image_offsets[shard] + rows
    finally:
        reader.close()
    return image_ids
