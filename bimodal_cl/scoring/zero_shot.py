"""Score zero-shot classification: encode labelled images, then take the nearest class prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bimodal_cl.cli.progress import progress
from bimodal_cl.errors import UserError
from bimodal_cl.metrics import mean_average_precision
from bimodal_cl.scoring.classifier import build_classifier, class_similarities, classify, score_classification
from bimodal_cl.scoring.encode_once import Encoder, distinct_images, evaluation_mode, pixel_key

# The default prompts, where neither the caller nor the data set has any.
DEFAULT_TEMPLATES = (
    "a photo of a {c}.",
    "a picture of the {c}.",
    "an image that shows a {c}.",
    "a close-up of a {c}.",
    "a {c}.",
)


class Labelled(Protocol):
    """The part of ``bimodal_cl.data.LabelledImages`` that evaluation uses."""

    classnames: list[str]
    labels: Sequence[Any]
    templates: list[str] | None

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Image.Image, Any]: ...


@dataclass(frozen=True)
class LabelledFeatures:
    """The features and labels of labelled images.

    Args:
        image_features: float32 ``[images, dim]``, unit norm.
        targets: int64, the class of each image ``[images]``; or, for multi-label images, 1 for every class that an
            image shows and 0 for the others ``[images, classes]``.
        skipped: a message for each image that could not be read.
    """

    image_features: Tensor
    targets: Tensor
    skipped: list[str]


def encode_labelled(
    model: Encoder,
    labelled: Labelled,
    batch_size: int = 64,
    num_workers: int = 0,
    autocast: torch.dtype | None = None,
    show_progress: bool = False,
) -> LabelledFeatures:
    """Encode every labelled image; images that cannot be read are skipped and listed in ``skipped``.

    Args:
        model: a dual encoder.
        labelled: images with class labels.
        batch_size: images that are decoded together; the tower's batch size is always ``IMAGES_AT_ONCE``.
        num_workers: processes that decode; 0: the main process.
        autocast: as :func:`evaluation_mode`.
        show_progress: whether to show progress on stderr.

    Raises:
        UserError: no image could be read.
    """
    loader = torch.utils.data.DataLoader(
        _Preprocessed(labelled, model.preprocess),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=_pack,
    )
    targets: list[Any] = []
    skipped: list[str] = []
    with evaluation_mode(model, autocast) as device:
        images = distinct_images(model, device)
        batches = progress(loader, len(loader), "batches", "encode images") if show_progress else loader
        for items in batches:
            for item in _unpack(*items):
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
        model: a dual encoder.
        labelled: images with class labels.
        templates: prompts with ``{c}``; None: the data set's own, else ``DEFAULT_TEMPLATES``.
        batch_size: as :func:`encode_labelled`.
        num_workers: as :func:`encode_labelled`.
        autocast: as :func:`evaluation_mode`.

    Returns:
        Fractions in ``[0, 1]``: ``acc1``, ``acc5`` (with at least 5 candidates, see ``bimodal_cl.scoring.classifier``)
        and ``mean_per_class_recall``; or, for multi-label images, ``mean_average_precision`` alone.
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
    """Return the names of the scores of :func:`evaluate_zero_shot`, without a model."""
    if not isinstance(labelled.labels[0], int):
        return ["mean_average_precision"]
    enough = len(set(labelled.classnames)) >= 5
    return ["acc1", *(["acc5"] if enough else []), "mean_per_class_recall"]


def _pack(items: list[Any]) -> tuple[list[Any], list[Tensor]]:
    """Join the pixels of a batch: one tensor crosses from a worker to the main process faster than many."""
    images = [item[-2] for item in items if not isinstance(item, str)]
    others = [item if isinstance(item, str) else (*item[:-2], item[-1]) for item in items]
    return others, [torch.stack(images)] if images else []


def _unpack(others: list[Any], images: list[Tensor]) -> Iterator[Any]:
    """Yield the items of :func:`_pack`."""
    rows: Iterator[Tensor] = iter(images[0] if images else [])
    for item in others:
        yield item if isinstance(item, str) else (*item[:-1], next(rows), item[-1])


class _Preprocessed(torch.utils.data.Dataset):
    """Yield key, pixels and class of each image, or a message where an image cannot be read."""

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
