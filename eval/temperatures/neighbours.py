"""Count the near neighbours of images and texts in the feature space, as a measure of how frequent their meaning is.

A sample of the visited images, and one caption of each, is encoded by the run's own checkpoint. Neighbours of an image
are the other images of the sample whose cosine with it is at least a threshold, and likewise for texts. The threshold
of each modality is the cosine that the highest 1 % of all pairs of its sample reach, so that it fits any model and any
data: an item has 1 % of the sample as neighbours on average.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bimodal_cl.errors import UserError

from .correlation import Correlation, correlate
from .learned import LearnedTemperatures

if TYPE_CHECKING:
    import torch

    from bimodal_cl.data.shards.mixture import Mixture
    from bimodal_cl.models import DualEncoder

QUANTILE = 0.99
DUPLICATE = 0.98
CROWDED = 0.9  # a threshold above which cosines near 1 are common among different items
_MOST_FOR_QUANTILE = 2000  # items whose pairs the quantile is taken of
_ROUNDING = 1e-6  # of a cosine in float32, so that equal features are neighbours at a threshold of 1
_IMAGES_AT_ONCE = 64
_MOST_ROWS, _MOST_COSINES = 512, 2**26  # of a block


@dataclass(frozen=True)
class Neighbours:
    """The neighbours of a sample of one modality.

    Attributes:
        ids: int64 ``[sample]``, ascending.
        count: int64 ``[sample]``, other items whose cosine is at least ``threshold``.
        duplicates: int64 ``[sample]``, other items whose cosine is above ``DUPLICATE``.
        nearest: int64 ``[sample]``, the id of the nearest other item.
        cosine: float32 ``[sample]``, its cosine.
        threshold: cosine from which items are neighbours.
        correlation: of the temperatures with ``count``.
    """

    ids: np.ndarray
    count: np.ndarray
    duplicates: np.ndarray
    nearest: np.ndarray
    cosine: np.ndarray
    threshold: float
    correlation: Correlation

    def as_json(self) -> dict[str, Any]:
        """Return the correlation and what it was measured on."""
        return {
            **self.correlation.as_json(),
            "cosine_threshold": self.threshold,
            "mean_neighbours": float(self.count.mean()),
            "with_near_duplicate": int((self.duplicates > 0).sum()),
        }


def find_neighbours(
    checkpoint: str,
    data: Mixture,
    images: LearnedTemperatures,
    texts: LearnedTemperatures,
    sample: int,
    device: torch.device,
    seed: int = 0,
) -> tuple[Neighbours, Neighbours]:
    """Encode a sample of the training data and return the neighbours of its ``(images, texts)``.

    Args:
        checkpoint: the folder of the model that learned the temperatures.
        data: its training data.
        images, texts: the temperatures.
        sample: the most images, >= 2; of each, one visited caption is drawn.
        device: where to encode.
        seed: of the sample and of the bootstrap.

    Raises:
        UserError: the model or the data cannot be read, or fewer than two images or texts were visited.
    """
    from bimodal_cl.models.load import load_model

    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(images.ids)[:sample])
    if len(chosen) < 2:
        raise UserError("fewer than two images were visited")
    model = load_model(checkpoint, device)
    (image_ids, image_features), (text_ids, text_features) = _encode(model, data, chosen, texts, rng)
    if len(text_ids) < 2:
        raise UserError("fewer than two texts of the sampled images were visited")
    return (
        count_neighbours(image_ids, image_features, images.by_id()[image_ids], seed),
        count_neighbours(text_ids, text_features, texts.by_id()[text_ids], seed),
    )


def count_neighbours(ids: np.ndarray, features: np.ndarray, tau: np.ndarray, seed: int = 0) -> Neighbours:
    """Count neighbours in blocks, so that the matrix of all cosines is never held.

    Args:
        ids: int64 ``[sample]``.
        features: float32 ``[sample, dim]``, unit norm; at least two.
        tau: ``[sample]``.
        seed: of the choice of pairs for the threshold in samples above 2,000, and of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    part = features[rng.permutation(len(features))[:_MOST_FOR_QUANTILE]]
    threshold = float(np.quantile((part @ part.T)[np.triu_indices(len(part), 1)], QUANTILE))
    columns: list[list[np.ndarray]] = [[], [], [], []]
    block = max(1, min(_MOST_ROWS, _MOST_COSINES // len(features)))
    for start in range(0, len(features), block):
        cosines = features[start : start + block] @ features.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -np.inf  # nothing is its own neighbour
        nearest = cosines.argmax(axis=1)
        found = (
            (cosines >= threshold - _ROUNDING).sum(axis=1),
            (cosines > DUPLICATE).sum(axis=1),
            ids[nearest],
            cosines[rows, nearest],
        )
        for column, values in zip(columns, found, strict=True):
            column.append(values)
    count, duplicates, near, cosine = (np.concatenate(column) for column in columns)
    return Neighbours(ids, count, duplicates, near, cosine, threshold, correlate(count, tau, seed=seed))


def _encode(
    model: DualEncoder, data: Mixture, image_ids: np.ndarray, texts: LearnedTemperatures, rng: np.random.Generator
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return ``(ids, float32 features)`` of the images, and of one visited caption of each that has one."""
    from bimodal_cl.cli.progress import progress
    from bimodal_cl.scoring.encode_once import (
        distinct_images,
        distinct_texts,
        evaluation_mode,
        pixel_key,
        text_items,
    )

    visited = np.zeros(texts.num_ids, dtype=bool)
    visited[texts.ids] = True
    text_ids: list[int] = []
    with evaluation_mode(model) as device:
        encoded_images, encoded_texts = distinct_images(model, device), distinct_texts(model, device)
        for pair in progress(_read(data, image_ids), len(image_ids), "images", "encode a sample"):
            pixels = model.preprocess(pair.image)
            encoded_images.add(pixel_key(pixels), pixels)
            own = np.flatnonzero(visited[pair.first_text_id : pair.first_text_id + len(pair.captions)])
            if len(own):
                one = int(rng.choice(own))
                text_ids.append(pair.first_text_id + one)
                encoded_texts.add(*text_items(model, [pair.captions[one]])[0])
        features = [each.features().cpu().numpy() for each in (encoded_images, encoded_texts) if len(each)]
    no_texts = np.empty((0, 0), dtype=np.float32)
    return (image_ids, features[0]), (np.array(text_ids, dtype=np.int64), features[1] if text_ids else no_texts)


def _read(data: Mixture, image_ids: np.ndarray) -> Iterator[Any]:
    """Yield the pairs in the order of ascending ids, a few decoded at once."""
    from bimodal_cl.data.pairs import read_pairs

    for start in range(0, len(image_ids), _IMAGES_AT_ONCE):
        yield from read_pairs(data, image_ids[start : start + _IMAGES_AT_ONCE]).values()
