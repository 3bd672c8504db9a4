"""Read pairs of a shard folder as thumbnails that are embedded in the report."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..temperatures.learned import LearnedTemperatures
from ..trained_run import TrainedRun, find_data

if TYPE_CHECKING:
    from bimodal_cl.data.shards.mixture import Folders

_SIDE = 176  # pixels of a thumbnail's longer side: sharp at 88 CSS pixels on a dense display
_EXAMPLES = 8


@dataclass(frozen=True)
class Picture:
    """A thumbnail as a ``data:`` URI, with the id and all captions of its image."""

    image_id: int
    uri: str
    captions: list[str]
    first_text_id: int


def load_pictures(data: Folders, image_ids: Iterable[int]) -> dict[int, Picture]:
    """Return thumbnails by ``image_id``, by random access to these pictures only.

    Raises:
        UserError: the folder, an id or a shard cannot be read.
    """
    from bimodal_cl.data.pairs import read_pairs

    wanted = np.unique(np.fromiter(image_ids, dtype=np.int64))
    if not len(wanted):
        return {}
    return {
        int(image_id): Picture(int(image_id), _thumbnail(pair.image), list(pair.captions), int(pair.first_text_id))
        for image_id, pair in read_pairs(data, wanted).items()
    }


def _thumbnail(image: Image.Image) -> str:
    image = image.convert("RGB")
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
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


def extreme_images(data: Folders, rows: list[tuple[int, float]]) -> list[Extreme]:
    """Return rows for images by ``(image_id, tau)``, each with its first caption."""
    pictures = load_pictures(data, [image_id for image_id, _ in rows])
    return [
        Extreme(tau, image_id, next(iter(pictures[image_id].captions), ""), pictures[image_id].uri)
        for image_id, tau in rows
    ]


def extreme_texts(data: Folders, rows: list[tuple[int, float]]) -> list[Extreme]:
    """Return rows for texts by ``(text_id, tau)``, each with the picture that it describes."""
    from bimodal_cl.data.pairs import image_ids_of_texts

    if not rows:
        return []
    owners = image_ids_of_texts(data, np.array([text_id for text_id, _ in rows], dtype=np.int64)).tolist()
    pictures = load_pictures(data, owners)
    return [
        Extreme(tau, text_id, pictures[owner].captions[text_id - pictures[owner].first_text_id], pictures[owner].uri)
        for (text_id, tau), owner in zip(rows, owners, strict=True)
    ]


def both_ends(temperatures: LearnedTemperatures, count: int) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """Return up to ``count`` largest and smallest temperatures as ``(id, tau)``, without an id in both."""
    count = min(count, len(temperatures.ids) // 2)
    return temperatures.largest(count), temperatures.smallest(count)


@dataclass(frozen=True)
class RetrievalExample:
    """A caption, its own picture, and the best candidates in order; ``rank`` counts from 1."""

    caption: str
    rank: int
    own: Picture
    top: list[Picture]

    @property
    def hit(self) -> bool:
        """Whether the caption's own picture is among those shown."""
        return any(each.image_id == self.own.image_id for each in self.top)


def retrieval_examples(run: TrainedRun, result: dict[str, Any]) -> tuple[list[RetrievalExample], str]:
    """Return a result's saved examples: ``(examples, "")``, or ``([], why)`` where their pictures cannot be read."""
    from bimodal_cl.errors import UserError

    saved = result.get("examples") or []
    if not saved:
        return [], ""
    named = result.get("provenance", {}).get("data")
    folder = find_data(run, named)
    if folder is None:
        return [], f"the data were not found at '{named}'"
    chosen = saved[:_EXAMPLES]
    try:
        pictures = load_pictures(folder, [each for one in chosen for each in (one["image_id"], *one["top"])])
    except UserError as error:
        return [], str(error)
    return [
        RetrievalExample(
            caption=one["caption"],
            rank=int(one["rank"]),
            own=pictures[one["image_id"]],
            top=[pictures[image_id] for image_id in one["top"]],
        )
        for one in chosen
    ], ""
