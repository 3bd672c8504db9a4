"""Scores of a dual encoder on image-text pairs and on labelled images, during training and after it.

Everything here runs without gradients, in evaluation mode, on one process, in batches, and leaves every module in the
mode it was found in. The models and data are duck-typed: see ``bimodal_cl.models`` and ``bimodal_cl.data``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from bimodal_cl.errors import UserError
from bimodal_cl.metrics import class_ranks, mean_per_class_recall, median_rank, recalls_of_ranks, retrieval_ranks
from bimodal_cl.progress import progress

# Used where neither the caller nor the data set brings prompts: wordings of captions, averaged over.
DEFAULT_TEMPLATES = (
    "a photo of a {c}.",
    "a picture of the {c}.",
    "an image that shows a {c}.",
    "a close-up of a {c}.",
    "a {c}.",
)
RETRIEVAL_KS = (1, 5, 10)


class Encoder(Protocol):
    """What of a ``bimodal_cl.models.DualEncoder`` the evaluation uses; features are unit-norm ``[batch, dim]``."""

    def encode_image(self, pixels: Tensor) -> Tensor: ...
    def encode_text(self, texts: list[str]) -> Tensor: ...
    def preprocess(self, image: Image.Image) -> Tensor: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def modules(self) -> Iterator[nn.Module]: ...


class Labelled(Protocol):
    """What of a ``bimodal_cl.data.LabelledImages`` the evaluation uses."""

    classnames: list[str]
    templates: list[str] | None

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Image.Image, int]: ...


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
    """Unit-norm ``image_features`` ``[images, dim]``, int64 ``targets`` ``[images]``, a message for each not read."""

    image_features: Tensor
    targets: Tensor
    skipped: list[str]


@contextmanager
def evaluation_mode(model: Encoder, autocast: torch.dtype | None = None) -> Iterator[torch.device]:
    """Put every module into evaluation mode, without gradients, and back afterwards; yields the model's device.

    Args:
        model: a dual encoder.
        autocast: the type products are computed in (``torch.bfloat16``, ``torch.float16``); None: the weights' own.
    """
    was_training = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    try:
        for module, _ in was_training:
            module.training = False
        with torch.inference_mode(), torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            yield device
    finally:
        for module, mode in was_training:
            module.training = mode


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
    image_rows: list[Tensor] = []
    text_rows: list[Tensor] = []
    image_ids: list[int] = []
    text_ids: list[int] = []
    owners: list[int] = []
    captions: list[str] = []
    seen: set[int] = set()
    with evaluation_mode(model, autocast) as model_device:
        keep_on = model_device if device is None else device
        for batch in stream:
            fresh = [row for row, image_id in enumerate(batch.image_ids.tolist()) if _first_time(image_id, seen)]
            if not fresh:
                continue
            pixels = batch.images[fresh].to(model_device, non_blocking=True)
            image_rows.append(model.encode_image(pixels).float().to(keep_on))
            texts: list[str] = []
            for row in fresh:
                first = int(batch.first_text_ids[row])
                text_ids.extend(range(first, first + len(batch.captions[row])))
                owners.extend([len(image_ids)] * len(batch.captions[row]))
                image_ids.append(int(batch.image_ids[row]))
                texts.extend(batch.captions[row])
            captions.extend(texts)
            text_rows.extend(
                model.encode_text(part).float().to(keep_on) for part in _batches(texts, len(batch.image_ids))
            )
    if not image_rows:
        raise UserError("there is no image to encode: the stream is empty")
    if not text_rows:
        raise UserError(f"none of the {len(image_ids)} images has a caption")
    return PairFeatures(
        image_features=torch.cat(image_rows),
        text_features=torch.cat(text_rows),
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


def build_classifier(
    model: Encoder,
    classnames: Sequence[str],
    templates: Sequence[str],
    batch_size: int = 256,
    autocast: torch.dtype | None = None,
) -> Tensor:
    """Text features that stand for classes: of each class the mean of its prompts' features, brought back to unit norm.

    Source: Radford et al. 2021, section 3.1.4 (prompt ensembling in the embedding space).

    Args:
        model: a dual encoder.
        classnames: one name a class.
        templates: prompts with ``{c}`` where the name goes.
        batch_size: the most prompts encoded at once (at least those of one class).
        autocast: as :func:`evaluation_mode`.

    Returns:
        float32 ``[classes, dim]``, unit norm, on the model's device.

    Raises:
        UserError: no class, no template, or a template without ``{c}``.
    """
    if not classnames or not templates:
        raise UserError(f"{len(classnames)} class names and {len(templates)} templates: at least one of each is needed")
    for template in templates:
        if "{c}" not in template:
            raise UserError(f"template '{template}' has no {{c}} where the class name goes")
    rows = []
    with evaluation_mode(model, autocast):
        for part in _batches(list(classnames), max(1, batch_size // len(templates))):
            prompts = [template.replace("{c}", name) for name in part for template in templates]
            features = model.encode_text(prompts).float()
            rows.append(features.unflatten(0, (len(part), len(templates))).mean(dim=1))
    return nn.functional.normalize(torch.cat(rows), dim=-1)


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
        batch_size: images encoded at once.
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
    rows: list[Tensor] = []
    targets: list[int] = []
    skipped: list[str] = []
    with evaluation_mode(model, autocast) as device:
        batches = progress(loader, len(loader), "batches", "encode images") if show_progress else loader
        for items in batches:
            skipped.extend(item for item in items if isinstance(item, str))
            read = [item for item in items if not isinstance(item, str)]
            if read:
                pixels = torch.stack([pixels for pixels, _ in read]).to(device)
                rows.append(model.encode_image(pixels).float())
                targets.extend(target for _, target in read)
    if not rows:
        raise UserError(f"none of {len(labelled)} images could be read" + (f": {skipped[0]}" if skipped else ""))
    return LabelledFeatures(torch.cat(rows), torch.tensor(targets), skipped)


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
        ``acc1``, ``acc5`` (where there are at least 5 classes) and ``mean_per_class_recall``, fractions in ``[0, 1]``.
    """
    prompts = list(templates or labelled.templates or DEFAULT_TEMPLATES)
    classifier = build_classifier(model, labelled.classnames, prompts, autocast=autocast)
    encoded = encode_labelled(model, labelled, batch_size, num_workers, autocast)
    return score_classification(encoded.image_features @ classifier.T, encoded.targets)


def score_classification(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """The dictionary of :func:`evaluate_zero_shot` from logits ``[images, classes]`` and int64 targets ``[images]``."""
    ranks = class_ranks(logits, targets)
    scores = {f"acc{k}": float((ranks <= k).mean()) for k in (1, 5) if k <= logits.shape[1]}
    return {**scores, "mean_per_class_recall": mean_per_class_recall(logits, targets)}


class _Preprocessed(torch.utils.data.Dataset):
    """Pixels and class of each image; the message instead where an image cannot be read."""

    def __init__(self, labelled: Labelled, preprocess: Any) -> None:
        self.labelled = labelled
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, index: int) -> tuple[Tensor, int] | str:
        try:
            image, target = self.labelled[index]
            return self.preprocess(image), target
        except (UserError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            return f"image {index}: {error}"


def _first_time(image_id: int, seen: set[int]) -> bool:
    if image_id in seen:
        return False
    seen.add(image_id)
    return True


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
