"""Single pairs by id, for reports: the picture and captions behind an ``image_id`` or a ``text_id``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from bimodal_cl.data.images.decode import BadImage, decode_image
from bimodal_cl.data.shards.manifest import Manifest
from bimodal_cl.data.shards.mixture import Folders, open_mixture
from bimodal_cl.data.shards.mixture_reader import MixtureReader
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
    """Read the pairs of some image ids, whatever their order, each once.

    Raises:
        UserError: an id is outside the data set, an image cannot be decoded, or the manifest or a shard does not fit.
    """
    reader = MixtureReader(open_mixture(folder))
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


def image_ids_of_texts(folder: Folders, text_ids: Iterable[int] | np.ndarray) -> np.ndarray:
    """Return the ``image_id`` to which each ``text_id`` belongs, int64 ``[texts]``.

    Raises:
        UserError: an id is outside the data set, or the manifest or a shard does not fit.
    """
    mixture = open_mixture(folder)
    wanted = np.asarray(text_ids if isinstance(text_ids, np.ndarray) else list(text_ids), dtype=np.int64)
    outside = (wanted < 0) | (wanted >= mixture.num_texts)
    if outside.any():
        raise UserError(f"{mixture}: text_id {wanted[outside][0]} is outside [0, {mixture.num_texts})")
    sets = np.searchsorted(mixture.text_offsets, wanted, side="right") - 1
    image_ids = np.empty_like(wanted)
    for number in np.unique(sets).tolist():
        here = sets == number
        inside = _image_ids_of_texts(mixture.manifests[number], wanted[here] - mixture.text_offsets[number])
        image_ids[here] = inside + mixture.image_offsets[number]
    return image_ids


def _image_ids_of_texts(manifest: Manifest, text_ids: np.ndarray) -> np.ndarray:
    shards, _ = manifest.locate_texts(text_ids)
    image_ids = np.empty_like(text_ids)
    reader = RowReader(manifest)
    try:
        for shard in np.unique(shards).tolist():
            here = shards == shard
            # The last row that begins at or before the text: rows without captions share their follower's first id.
            rows = np.searchsorted(reader.first_text_ids(shard), text_ids[here], side="right") - 1
            image_ids[here] = manifest.image_offsets[shard] + rows
    finally:
        reader.close()
    return image_ids
