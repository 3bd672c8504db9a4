"""Read pairs of a shard folder as thumbnails that are embedded in the report."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..temperatures.learned import LearnedTemperatures

if TYPE_CHECKING:
    from bimodal_cl.data.shards.mixture import Folders


@dataclass(frozen=True)
class Picture:
    """A thumbnail as a ``data:`` URI, with the id and all captions of its image."""

    image_id: int
    uri: str
    captions: list[str]
    first_text_id: int


def load_pictures(data: Folders, image_ids: Iterable[int], side: int) -> dict[int, Picture]:
    """Return thumbnails by ``image_id``, by random access to these pictures only.

    Args:
        data: the shards.
        image_ids: which images.
        side: pixels of a thumbnail's longer side.

    Raises:
        UserError: the folder, an id or a shard cannot be read.
    """
    from bimodal_cl.data.pairs import read_pairs

    wanted = np.unique(np.fromiter(image_ids, dtype=np.int64))
    if not len(wanted):
        return {}
    return {
        int(image_id): Picture(
            int(image_id), _thumbnail(pair.image, side), list(pair.captions), int(pair.first_text_id)
        )
        for image_id, pair in read_pairs(data, wanted).items()
    }


def _thumbnail(image: Image.Image, side: int) -> str:
    image = image.convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


@dataclass(frozen=True)
class Extreme:
    """A row of the lists of largest and smallest temperatures."""

    tau: float
    id: int
    caption: str
    uri: str


def extreme_images(data: Folders, rows: list[tuple[int, float]], side: int) -> list[Extreme]:
    """Return rows for images by ``(image_id, tau)``, each with its first caption."""
    pictures = load_pictures(data, [image_id for image_id, _ in rows], side)
    return [
        Extreme(tau, image_id, next(iter(pictures[image_id].captions), ""), pictures[image_id].uri)
        for image_id, tau in rows
    ]


def extreme_texts(data: Folders, rows: list[tuple[int, float]], side: int) -> list[Extreme]:
    """Return rows for texts by ``(text_id, tau)``, each with the picture that it describes."""
    from bimodal_cl.data.pairs import image_ids_of_texts

    if not rows:
        return []
    owners = image_ids_of_texts(data, np.array([text_id for text_id, _ in rows], dtype=np.int64)).tolist()
    pictures = load_pictures(data, owners, side)
    return [
        Extreme(tau, text_id, pictures[owner].captions[text_id - pictures[owner].first_text_id], pictures[owner].uri)
        for (text_id, tau), owner in zip(rows, owners, strict=True)
    ]


def both_ends(temperatures: LearnedTemperatures, count: int) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """Return up to ``count`` largest and smallest temperatures as ``(id, tau)``, without an id in both."""
    count = min(count, len(temperatures.ids) // 2)
    return temperatures.largest(count), temperatures.smallest(count)
