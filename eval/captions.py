"""Read the captions of a shard folder without decoding images, and average temperatures by concept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bimodal_cl.errors import UserError
from bimodal_cl.files.text_files import read_text

if TYPE_CHECKING:
    from bimodal_cl.data.shards.mixture import Folders, Mixture


def iterate_captions(data: Mixture) -> Iterator[tuple[int, int, list[str]]]:
    """Yield ``(image_id, first_text_id, captions)`` of every image, in the order of ids.

    Raises:
        UserError: the manifest or a shard cannot be read.
    """
    from bimodal_cl.data.shards.reader import RowReader

    reader = RowReader(data)
    try:
        for image_id in range(data.num_images):
            first_text_id, captions = reader.read_captions(image_id)
            yield image_id, first_text_id, captions
    finally:
        reader.close()


def read_captions(data: Folders, text_ids: Iterable[int]) -> dict[int, str]:
    """Return the captions of some texts by ``text_id``, by random access, so that the data set may be large."""
    from bimodal_cl.data.pairs import image_ids_of_texts, read_pairs

    wanted = np.unique(np.fromiter(text_ids, dtype=np.int64))
    if not len(wanted):
        return {}
    owners = image_ids_of_texts(data, wanted)
    pairs = read_pairs(data, np.unique(owners))
    return {
        text_id: pairs[owner].captions[text_id - pairs[owner].first_text_id]
        for text_id, owner in zip(wanted.tolist(), owners.tolist(), strict=True)
    }


@dataclass(frozen=True)
class ConceptTemperature:
    """A concept's frequency in the training data, and its images' and texts' mean temperatures (NaN: none visited)."""

    concept: str
    count: int
    image_tau: float
    text_tau: float


def load_concepts(data: Path) -> list[tuple[str, int]]:
    """Return ``(concept, count)`` from the ``concepts.json`` of the built-in data set; empty if there is none.

    Raises:
        UserError: the file is there but holds no list ``concepts`` of ``{"concept": ..., "count": ...}``.
    """
    path = data.resolve().parent / "concepts.json"
    if not path.is_file():
        return []
    try:
        return [(str(each["concept"]), int(each["count"])) for each in json.loads(read_text(path))["concepts"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path}: no list "concepts" of {{"concept": ..., "count": ...}}: {error!r}') from error


def temperatures_of_concepts(
    data: Mixture, concepts: Sequence[tuple[str, int]], image_tau: np.ndarray, text_tau: np.ndarray
) -> list[ConceptTemperature]:
    """Average the temperatures of the texts that name a concept, and of their images.

    A caption names a concept when it contains the concept's words as a phrase, in any case.

    Args:
        data: the training data.
        concepts: ``(concept, count)``.
        image_tau, text_tau: ``[images]`` and ``[texts]``, NaN where never visited.

    Returns:
        One entry for each concept that a visited text or image shows.
    """
    index_of_words = {_words(concept): index for index, (concept, _) in enumerate(concepts)}
    lengths = sorted({len(words) for words in index_of_words})
    sums = np.zeros((2, len(concepts)))
    counts = np.zeros((2, len(concepts)), dtype=np.int64)
    for image_id, first_text_id, captions in iterate_captions(data):
        shown: set[int] = set()
        for text_id, caption in enumerate(captions, start=first_text_id):
            words = _words(caption)
            named = {
                index_of_words[part]
                for length in lengths
                for start in range(len(words) - length + 1)
                if (part := words[start : start + length]) in index_of_words
            }
            shown |= named
            if named and not np.isnan(text_tau[text_id]):
                sums[1, list(named)] += text_tau[text_id]
                counts[1, list(named)] += 1
        if shown and not np.isnan(image_tau[image_id]):
            sums[0, list(shown)] += image_tau[image_id]
            counts[0, list(shown)] += 1
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return [
        ConceptTemperature(concept, count, float(means[0, index]), float(means[1, index]))
        for index, (concept, count) in enumerate(concepts)
        if counts[:, index].any()
    ]


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.lower()))
