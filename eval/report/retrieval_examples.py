"""Prepare a retrieval result's saved examples with their pictures: hits, near misses and misses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bimodal_cl.errors import UserError

from ..trained_run import find_shards
from .pictures import Picture, load_pictures


@dataclass(frozen=True)
class CaptionExample:
    """A caption, its own picture, and the best candidates in order; ``rank`` counts from 1.

    ``note`` says what else is known of it, such as the ranks in other models.
    """

    caption: str
    rank: int
    own: Picture
    top: list[Picture]
    text_id: int
    note: str = ""


@dataclass(frozen=True)
class PictureExample:
    """A picture, one of its captions, and the best captions in order, each with whether it is right."""

    own: Picture
    rank: int
    captions: list[str]
    top: list[tuple[str, bool]]


@dataclass(frozen=True)
class Examples:
    """A result's examples.

    Attributes:
        title: the data set.
        saved: number of captions that the result holds.
        captions, pictures: those shown.
        why: why there are none; "" where there are some.
    """

    title: str
    saved: int
    captions: list[CaptionExample]
    pictures: list[PictureExample]
    why: str = ""


def retrieval_examples(title: str, near: Path, result: dict[str, Any], count: int, side: int) -> Examples | None:
    """Return a result's examples; None where it saved none.

    Args:
        title: the data set, in words.
        near: the folder of the run or the result, from where relative names of data are looked up.
        result: the result.
        count: the most captions, and the most pictures.
        side: pixels of a thumbnail's longer side.
    """
    captions, pictures = result.get("examples") or [], result.get("caption_examples") or []
    if not captions and not pictures:
        return None
    named = (result.get("provenance") or {}).get("data")
    folder = find_shards(near, named)
    if folder is None:
        return Examples(title, len(captions), [], [], f"the data were not found at '{named}'")
    chosen, shown = _spread(captions, count), _spread(pictures, count)
    wanted = [each for one in chosen for each in (one["image_id"], *one["top"])] + [one["image_id"] for one in shown]
    try:
        found = load_pictures(folder, wanted, side)
    except UserError as error:
        return Examples(title, len(captions), [], [], str(error))
    return Examples(
        title,
        len(captions),
        [
            CaptionExample(
                caption=one["caption"],
                rank=int(one["rank"]),
                own=found[one["image_id"]],
                top=[found[image_id] for image_id in one["top"]],
                text_id=int(one.get("text_id", -1)),
            )
            for one in chosen
        ],
        [_picture_example(one, found[one["image_id"]]) for one in shown],
    )


def _picture_example(one: dict[str, Any], own: Picture) -> PictureExample:
    right = set(one["text_ids"])
    top = [(text, text_id in right) for text, text_id in zip(one["top_captions"], one["top"], strict=True)]
    return PictureExample(own, int(one["rank"]), list(one["captions"]), top)


def _spread(saved: Sequence[Any], count: int) -> list[Any]:
    """Return some of the examples, evenly spaced: they are ordered from successes to failures."""
    if len(saved) <= count:
        return list(saved)
    return [saved[place] for place in np.linspace(0, len(saved) - 1, count).round().astype(int)]
