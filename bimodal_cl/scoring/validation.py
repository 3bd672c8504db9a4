"""Scores of a dual encoder on image-text pairs and on labelled images, during training and after it.

Everything here runs without gradients, in evaluation mode, on one process, in batches, and leaves every module in the
mode it was found in. The models and data are duck-typed: see ``bimodal_cl.models`` and ``bimodal_cl.data``.

Scores depend on nothing but the model and the data, to the last digit: not on the batch size, the number of worker
processes or threads, the order of images, captions or classes. ``bimodal_cl.scoring.encode_once`` says how far that is
so of features and what was measured for it; from features on (``bimodal_cl.metrics.similarities``, ``metrics``,
``classifier``) it holds by arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bimodal_cl.cli.progress import progress
from bimodal_cl.errors import UserError
from bimodal_cl.metrics import mean_average_precision, median_rank, recalls_of_ranks, retrieval_ranks
from bimodal_cl.scoring.classifier import build_classifier, class_similarities, classify, score_classification
from bimodal_cl.scoring.encode_once import (
    Encoder,
    distinct_images,
    distinct_texts,
    evaluation_mode,
    pixel_key,
    text_items,
)

# Used where neither the caller nor the data set brings prompts: wordings of captions, averaged over.
DEFAULT_TEMPLATES = (
    "a photo of a {c}.",
    "a picture of the {c}.",
    "an image that shows a {c}.",
    "a close-up of a {c}.",
    "a {c}.",
)
RETRIEVAL_KS = (1, 5, 10)


class Labelled(Protocol):
    """What of a ``bimodal_cl.data.LabelledImages`` the evaluation uses."""

    classnames: list[str]
    labels: Sequence[Any]
    templates: list[str] | None

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Image.Image, Any]: ...


@dataclass(frozen=True)
class PairFeatures:
    """The features of image-text pairs and how they belong together.

    ``image_features``: float32 ``[images, dim]``; ``text_features``: float32 ``[texts, dim]``, unit norm.
    ``image_ids``: int64 ``[images]`` and ``text_ids``: int64 ``[texts]``, positions in the manifest.
    ``image_of_text``: int64 ``[texts]``, the **row** in ``image_features`` a text describes. ``captions``: the texts.
    """

    image_features: Tensor
    text_features: Tensor
    image_ids: Tensor
    text_ids: Tensor
    image_of_text: Tensor
    captions: list[str]


@dataclass(frozen=True)
class LabelledFeatures:
    """Labelled images, encoded.

    ``image_features``: float32 ``[images, dim]``, unit norm. ``targets``: int64, the class of each ``[images]``, or 1
    for every class an image shows and 0 for the others ``[images, classes]``. ``skipped``: a message for each image
    that could not be read.
    """

    image_features: Tensor
    targets: Tensor
    skipped: list[str]


def encode_pairs(
    model: Encoder, stream: Iterable[Any], device: torch.device | None = None, autocast: torch.dtype | None = None
) -> PairFeatures:
    """Encode every image of a stream once and **all** its captions.

    Args:
        model: a dual encoder.
        stream: batches of ``open_stream(..., train=False)``, one process's. An image that comes a second time is left
            out, so that no pair is scored twice.
        device: where the features are kept; None: the model's device.
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
    """``(image_ranks [texts], text_ranks [images with a caption])`` of encoded pairs, int64 from 1."""
    return retrieval_ranks(pairs.image_features, pairs.text_features, pairs.image_of_text)


def score_retrieval(image_ranks: Any, text_ranks: Any) -> dict[str, float]:
    """The dictionary of :func:`evaluate_retrieval` from the ranks of both directions."""
    return {
        **recalls_of_ranks(image_ranks, text_ranks, RETRIEVAL_KS),
        "image_retrieval_median_rank": median_rank(image_ranks),
        "text_retrieval_median_rank": median_rank(text_ranks),
    }


def encode_labelled(
    model: Encoder,
    labelled: Labelled,
    batch_size: int = 64,
    num_workers: int = 0,
    autocast: torch.dtype | None = None,
    show_progress: bool = False,
) -> LabelledFeatures:
    """Encode every labelled image. One that cannot be read is left out and named in ``skipped``.

    Args:
        model: a dual encoder.
        labelled: images with class labels.
        batch_size: images decoded and handed on at once; how many the tower sees is ``IMAGES_AT_ONCE``.
        num_workers: processes that decode; 0: this one.
        autocast: as :func:`evaluation_mode`.
        show_progress: print how far it is, on stderr.

    Raises:
        UserError: no image could be read.
    """
    loader = torch.utils.data.DataLoader(
        _Preprocessed(labelled, model.preprocess),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=list,
    )
    targets: list[Any] = []
    skipped: list[str] = []
    with evaluation_mode(model, autocast) as device:
        images = distinct_images(model, device)
        batches = progress(loader, len(loader), "batches", "encode images") if show_progress else loader
        for items in batches:
            for item in items:
                if isinstance(item, str):
                    skipped.append(item)
                    continue
                key, pixels, target = item
                images.add(key, pixels)
                targets.append(target)
        if not targets:
            raise UserError(f"none of {len(labelled)} images could be read" + (f": {skipped[0]}" if skipped else ""))
        return LabelledFeatures(images.features(), torch.from_numpy(np.array(targets, dtype=np.int64)), skipped)


def evaluate_zero_shot(
    model: Encoder,
    labelled: Labelled,
    templates: Sequence[str] | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
    autocast: torch.dtype | None = None,
) -> dict[str, float]:
    """Classify labelled images by the nearest class prompt.

    Args:
        templates: prompts with ``{c}``; None: the data set's own, else ``DEFAULT_TEMPLATES``.
        model, labelled, batch_size, num_workers, autocast: as :func:`encode_labelled`.

    Returns:
        ``acc1``, ``acc5`` (where there are at least 5 candidates, see ``bimodal_cl.scoring.classifier``) and
        ``mean_per_class_recall``; only ``mean_average_precision`` where an image may show several classes. Fractions
        in ``[0, 1]``.
    """
    prompts = list(templates or labelled.templates or DEFAULT_TEMPLATES)
    classifier = build_classifier(model, labelled.classnames, prompts, autocast=autocast)
    encoded = encode_labelled(model, labelled, batch_size, num_workers, autocast)
    if encoded.targets.ndim == 2:
        sims = class_similarities(classifier, encoded.image_features)
        return {"mean_average_precision": mean_average_precision(sims, encoded.targets)}
    ranks, predictions = classify(classifier, encoded.image_features, encoded.targets)
    return score_classification(classifier, ranks, predictions, encoded.targets)


def zero_shot_scores(labelled: Labelled) -> list[str]:
    """Name the scores of :func:`evaluate_zero_shot`, before any model is there to give them."""
    if not isinstance(labelled.labels[0], int):
        return ["mean_average_precision"]
    enough = len(set(labelled.classnames)) >= 5
    return ["acc1", *(["acc5"] if enough else []), "mean_per_class_recall"]


class _Preprocessed(torch.utils.data.Dataset):
    """Key, pixels and class of each image; the message instead where an image cannot be read."""

    def __init__(self, labelled: Labelled, preprocess: Any) -> None:
        self.labelled = labelled
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, index: int) -> tuple[bytes, Tensor, Any] | str:
        try:
            image, target = self.labelled[index]
            pixels = self.preprocess(image)
            return pixel_key(pixels), pixels, target
        except (UserError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            return f"image {index}: {error}"


def _first_time(image_id: int, seen: set[int]) -> bool:
    if image_id in seen:
        return False
    seen.add(image_id)
    return True
