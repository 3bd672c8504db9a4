"""Score image-text retrieval: encode every image and caption once, then rank."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bimodal_cl.errors import UserError
from bimodal_cl.metrics import median_rank, recalls_of_ranks, retrieval_ranks
from bimodal_cl.scoring.encode_once import (
    Encoder,
    distinct_images,
    distinct_texts,
    evaluation_mode,
    pixel_key,
    text_items,
)

RETRIEVAL_KS = (1, 5, 10)


@dataclass(frozen=True)
class PairFeatures:
    """The features of image-text pairs, and which text describes which image.

    Args:
        image_features: float32 ``[images, dim]``, unit norm.
        text_features: float32 ``[texts, dim]``, unit norm.
        image_ids: int64 ``[images]``, positions in the manifest.
        text_ids: int64 ``[texts]``, positions in the manifest.
        image_of_text: int64 ``[texts]``, the **row** in ``image_features`` that a text describes.
        captions: the texts.
    """

    image_features: Tensor
    text_features: Tensor
    image_ids: Tensor
    text_ids: Tensor
    image_of_text: Tensor
    captions: list[str]


def encode_pairs(
    model: Encoder, stream: Iterable[Any], device: torch.device | None = None, autocast: torch.dtype | None = None
) -> PairFeatures:
    """Encode every image of a stream once and **all** its captions.

    Args:
        model: a dual encoder.
        stream: batches from ``open_stream(..., train=False)`` in one process. Repeated images are skipped, so that no
            pair is scored twice.
        device: the device on which the features are kept; None: the model's device.
        autocast: as :func:`evaluation_mode`.

    Raises:
        UserError: the stream held no image, or no caption.
    """
    image_ids: list[int] = []
    text_ids: list[int] = []
    owners: list[int] = []
    captions: list[str] = []
    seen: set[int] = set()
    with evaluation_mode(model, autocast) as model_device:
        images = distinct_images(model, model_device, device)
        encoded_texts = distinct_texts(model, model_device, device)
        for batch in stream:
            fresh = [row for row, image_id in enumerate(batch.image_ids.tolist()) if _first_time(image_id, seen)]
            texts: list[str] = []
            for row in fresh:
                images.add(pixel_key(batch.images[row]), batch.images[row].clone())
                first = int(batch.first_text_ids[row])
                text_ids.extend(range(first, first + len(batch.captions[row])))
                owners.extend([len(image_ids)] * len(batch.captions[row]))
                image_ids.append(int(batch.image_ids[row]))
                texts.extend(batch.captions[row])
            captions.extend(texts)
            for item in text_items(model, texts):
                encoded_texts.add(*item)
        if not image_ids:
            raise UserError("there is no image to encode: the stream is empty")
        if not captions:
            raise UserError(f"none of the {len(image_ids)} images has a caption")
        return PairFeatures(
            image_features=images.features(),
            text_features=encoded_texts.features(),
            image_ids=torch.tensor(image_ids),
            text_ids=torch.tensor(text_ids),
            image_of_text=torch.tensor(owners),
            captions=captions,
        )


def evaluate_retrieval(model: Encoder, stream: Iterable[Any], autocast: torch.dtype | None = None) -> dict[str, float]:
    """Score retrieval in both directions among all pairs of a stream.

    Returns:
        ``image_retrieval_recall@K`` and ``text_retrieval_recall@K`` for K = 1, 5, 10, fractions in ``[0, 1]``, and
        ``image_retrieval_median_rank``, ``text_retrieval_median_rank``, from 1. See ``bimodal_cl.metrics``.
    """
    return score_retrieval(*ranks_of_pairs(encode_pairs(model, stream, autocast=autocast)))


def ranks_of_pairs(pairs: PairFeatures) -> tuple[Any, Any]:
    """Return ``(image_ranks [texts], text_ranks [images with a caption])`` of encoded pairs, int64 from 1."""
    return retrieval_ranks(pairs.image_features, pairs.text_features, pairs.image_of_text)


def score_retrieval(image_ranks: Any, text_ranks: Any) -> dict[str, float]:
    """Return the dictionary of :func:`evaluate_retrieval` for the ranks of both directions."""
    return {
        **recalls_of_ranks(image_ranks, text_ranks, RETRIEVAL_KS),
        "image_retrieval_median_rank": median_rank(image_ranks),
        "text_retrieval_median_rank": median_rank(text_ranks),
    }


def _first_time(image_id: int, seen: set[int]) -> bool:
    if image_id in seen:
        return False
    seen.add(image_id)
    return True
