"""Score image-text retrieval: encode every image and caption once, or project their features, then rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from bimodal_cl.data.features.tables import FeatureTables
from bimodal_cl.distributed import gather_objects
from bimodal_cl.errors import UserError
from bimodal_cl.metrics import (
    RankedQueries,
    mean_rank,
    median_rank,
    rank_queries,
    recall_sum,
    recalls_of_ranks,
)
from bimodal_cl.metrics.arrays import exact_mean, share
from bimodal_cl.models.features.heads import FeatureHeads
from bimodal_cl.scoring.encode_once import (
    Encoder,
    distinct_images,
    distinct_texts,
    evaluation_mode,
    pixel_key,
    text_items,
)

RETRIEVAL_KS = (1, 5, 10)
_FEATURES_AT_ONCE = 4096

# Ids of images, ids of texts, the row of each text's image, and the texts.
_Pairs: TypeAlias = tuple[list[int], list[int], list[int], list[str]]


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
    model: Encoder,
    stream: Iterable[Any],
    device: torch.device | None = None,
    autocast: torch.dtype | None = None,
    shared: bool = False,
) -> PairFeatures:
    """Encode every image of a stream once and **all** its captions.

    Args:
        model: a dual encoder.
        stream: batches from ``open_stream(..., train=False)``. Repeated images are skipped, so that no pair is scored
            twice; with ``shared``, those that a rank's own stream repeats.
        device: the device on which the features are kept; None: the model's device.
        autocast: as :func:`evaluation_mode`.
        shared: whether all ranks call this, each with the stream of its share, and no image is in two of
            them; every rank gets all features.

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
        if shared:
            image_ids, text_ids, owners, captions = _join(gather_objects((image_ids, text_ids, owners, captions)))
        if not image_ids:
            raise UserError("there is no image to encode: the stream is empty")
        if not captions:
            raise UserError(f"none of the {len(image_ids)} images has a caption")
        return PairFeatures(
            image_features=images.gather_shares() if shared else images.features(),
            text_features=encoded_texts.gather_shares() if shared else encoded_texts.features(),
            image_ids=torch.tensor(image_ids),
            text_ids=torch.tensor(text_ids),
            image_of_text=torch.tensor(owners),
            captions=captions,
        )


def encode_features(
    heads: FeatureHeads,
    tables: FeatureTables,
    captions: list[str] | None = None,
    autocast: torch.dtype | None = None,
) -> PairFeatures:
    """Project every usable image, in the crop of evaluation, and all its captions.

    Args:
        heads: trained on features of the same towers.
        tables: the features of one data set.
        captions: all its captions, in the order of ``text_id``; None: they are left empty.
        autocast: as :func:`evaluation_mode`.
    """
    counts = np.diff(tables.first_text_ids)
    usable = np.ones(len(counts), dtype=bool)
    usable[list(tables.unusable)] = False
    image_ids = np.flatnonzero(usable)
    text_ids = np.flatnonzero(np.repeat(usable, counts))
    rows = np.cumsum(usable) - 1
    with evaluation_mode(heads, autocast):
        return PairFeatures(
            image_features=_in_parts(heads.encode_image, lambda ids: tables.images(ids, np.zeros_like(ids)), image_ids),
            text_features=_in_parts(heads.encode_text, tables.texts, text_ids),
            image_ids=torch.from_numpy(image_ids),
            text_ids=torch.from_numpy(text_ids),
            image_of_text=torch.from_numpy(np.repeat(rows, counts)[text_ids]),
            captions=[""] * len(text_ids) if captions is None else [captions[each] for each in text_ids.tolist()],
        )


def evaluate_retrieval(model: Encoder, stream: Iterable[Any], autocast: torch.dtype | None = None) -> dict[str, float]:
    """Score retrieval in both directions among all pairs of a stream.

    Returns:
        ``image_retrieval_recall@K`` and ``text_retrieval_recall@K`` for K = 1, 5, 10 and, likewise in both directions,
        ``..._mAP@R``, fractions in ``[0, 1]``; ``..._median_rank`` and ``..._mean_rank``, from 1; and ``rsum``, the sum
        of the six recalls, in ``[0, 6]``. See ``bimodal_cl.metrics``.
    """
    return score_retrieval(rank_pairs(encode_pairs(model, stream, autocast=autocast)))


def evaluate_features(heads: FeatureHeads, tables: FeatureTables) -> dict[str, float]:
    """Score retrieval as :func:`evaluate_retrieval` does."""
    scores = score_retrieval(rank_pairs(encode_features(heads, tables)))
    return scores | ({"left_out": float(len(tables.unusable))} if tables.unusable else {})


def rank_pairs(pairs: PairFeatures) -> RankedQueries:
    """Return how well every caption found its image, and every image its captions.

    Raises:
        UserError: the two kinds of features differ in their width.
    """
    require_one_width(pairs.image_features, pairs.text_features)
    return rank_queries(pairs.image_features, pairs.text_features, pairs.image_of_text)


def require_one_width(image_features: Tensor, text_features: Tensor) -> None:
    """Refuse a model whose towers differ in the width of their features.

    Raises:
        UserError: they differ.
    """
    widths = image_features.shape[1], text_features.shape[1]
    if widths[0] != widths[1]:
        raise UserError(
            f"the model's image features have {widths[0]} numbers and its text features {widths[1]}, so they cannot be "
            "compared: its towers need projections to one width"
        )


def score_retrieval(ranked: RankedQueries) -> dict[str, float]:
    """Return the dictionary of :func:`evaluate_retrieval` for ranked queries."""
    image_ranks, text_ranks = ranked.image_ranks, ranked.text_ranks
    return {
        **recalls_of_ranks(image_ranks, text_ranks, RETRIEVAL_KS),
        "image_retrieval_median_rank": median_rank(image_ranks),
        "text_retrieval_median_rank": median_rank(text_ranks),
        "image_retrieval_mean_rank": mean_rank(image_ranks),
        "text_retrieval_mean_rank": mean_rank(text_ranks),
        "image_retrieval_mAP@R": share(torch.from_numpy(image_ranks == 1)),
        "text_retrieval_mAP@R": exact_mean(ranked.text_precisions.tolist()),
        "rsum": recall_sum(image_ranks, text_ranks),
    }


def retrieval_scores() -> list[str]:
    """Return the names of the scores of :func:`evaluate_retrieval`, without a model."""
    first = np.ones(1, dtype=np.int64)
    return list(score_retrieval(RankedQueries(first, first, np.ones(1))))


def _join(parts: list[_Pairs]) -> _Pairs:
    """Put the pairs of all ranks together; rows of images are counted over all of them."""
    image_ids: list[int] = []
    text_ids: list[int] = []
    owners: list[int] = []
    captions: list[str] = []
    for part in parts:
        owners += [len(image_ids) + owner for owner in part[2]]
        image_ids += part[0]
        text_ids += part[1]
        captions += part[3]
    return image_ids, text_ids, owners, captions


def _first_time(image_id: int, seen: set[int]) -> bool:
    if image_id in seen:
        return False
    seen.add(image_id)
    return True


def _in_parts(encode: Callable[[Tensor], Tensor], read: Callable[[np.ndarray], np.ndarray], ids: np.ndarray) -> Tensor:
    parts = [
        encode(torch.from_numpy(read(ids[start : start + _FEATURES_AT_ONCE])))
        for start in range(0, len(ids), _FEATURES_AT_ONCE)
    ]
    return torch.cat(parts)
