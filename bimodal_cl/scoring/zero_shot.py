"""Score zero-shot classification: encode labelled images, then take the nearest class prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bimodal_cl.distributed import gather_objects, share_of_rank
from bimodal_cl.errors import UserError
from bimodal_cl.metrics import mean_average_precision
from bimodal_cl.scoring.classifier import build_classifier, class_similarities, classify, score_classification
from bimodal_cl.scoring.encode_once import Encoder, distinct_images, evaluation_mode, pixel_key
from bimodal_cl.scoring.share_progress import show_share

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
        kept: int64 ``[images]``, the number of each in the data.
    """

    image_features: Tensor
    targets: Tensor
    skipped: list[str]
    kept: Tensor


def encode_labelled(
    model: Encoder,
    labelled: Labelled,
    batch_size: int = 64,
    num_workers: int = 0,
    autocast: torch.dtype | None = None,
    show_progress: bool = False,
    shared: bool = False,
) -> LabelledFeatures:
    """Encode every labelled image; images that cannot be read are skipped and listed in ``skipped``.

    Args:
        model: a dual encoder.
        labelled: images with class labels.
        batch_size: images that are decoded together; the tower's batch size is always ``IMAGES_AT_ONCE``.
        num_workers: processes that decode; 0: the main process.
        autocast: as :func:`evaluation_mode`.
        show_progress: whether to show progress on stderr.
        shared: whether all ranks call this, to encode a share each; every rank gets all features.

    Raises:
        UserError: no image could be read.
    """
    first, last = share_of_rank(len(labelled)) if shared else (0, len(labelled))
    loader = torch.utils.data.DataLoader(
        torch.utils.data.Subset(_Preprocessed(labelled, model.preprocess), range(first, last)),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=_pack,
    )
    targets: list[Any] = []
    kept: list[int] = []
    skipped: list[str] = []
    with evaluation_mode(model, autocast) as device:
        images = distinct_images(model, device)
        batches: Iterable[Any] = loader
        if show_progress:
            batches = show_share(loader, last - first, "images", lambda packed: len(packed[0]), shared)
        for others, pixels_of_batch in batches:
            for item in _unpack(others, pixels_of_batch):
                if isinstance(item, str):
                    skipped.append(item)
                    continue
                number, key, pixels, target = item
                images.add(key, pixels)
                targets.append(target)
                kept.append(number)
        if shared:
            parts = gather_objects((targets, kept, skipped))
            targets = [target for of_rank, _, _ in parts for target in of_rank]
            kept = [number for _, of_rank, _ in parts for number in of_rank]
            skipped = [message for _, _, of_rank in parts for message in of_rank]
        if not targets:
            raise UserError(f"none of {len(labelled)} images could be read" + (f": {skipped[0]}" if skipped else ""))
        features = images.gather_shares() if shared else images.features()
    return LabelledFeatures(features, _as_tensor(targets), skipped, torch.tensor(kept))


def label_features(model: Encoder, labelled: Labelled, image_features: Tensor, kept: Tensor) -> LabelledFeatures | None:
    """Return the features of images that were encoded before, with their labels now.

    Args:
        model: the dual encoder, whose preprocessing says again why images are skipped.
        labelled: the images.
        image_features: float32 ``[images, dim]``.
        kept: int64 ``[images]``, the number of each in the data.

    Returns:
        What :func:`encode_labelled` returned then; None where an image that was skipped can be read now.
    """
    again = _Preprocessed(labelled, model.preprocess)
    left_out = sorted(set(range(len(labelled))) - set(kept.tolist()))
    skipped = [each for each in map(again.__getitem__, left_out) if isinstance(each, str)]
    if len(skipped) < len(left_out):
        return None
    return LabelledFeatures(image_features, _as_tensor([labelled.labels[at] for at in kept.tolist()]), skipped, kept)


def _as_tensor(targets: list[Any]) -> Tensor:
    return torch.from_numpy(np.array(targets, dtype=np.int64))


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
    return score_classification(ranks, predictions, encoded.targets.numpy(), classifier.num_candidates)


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
    """Yield number, key, pixels and class of each image, or a message where an image cannot be read."""

    def __init__(self, labelled: Labelled, preprocess: Any) -> None:
        self.labelled = labelled
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, index: int) -> tuple[int, bytes, Tensor, Any] | str:
        try:
            image, target = self.labelled[index]
            pixels = self.preprocess(image)
            return index, pixel_key(pixels), pixels, target
        except (UserError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            return f"image {index}: {error}"
