"""Build a zero-shot classifier from class prompts, and rank the classes of images.

Classes whose prompts have the same tokens (``missile`` and ``sunglasses`` each name two of ImageNet's classes) cannot
be distinguished by any model. They form **one candidate**: an image is classified correctly if the candidate of its
class comes first, ranks count candidates, and the chance level is one over the number of candidates. Ties between
candidates follow the rule of ``bimodal_cl.metrics``: a wrong one is ranked before the right one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from bimodal_cl.errors import UserError
from bimodal_cl.metrics import class_ranks, mean_per_class_recall
from bimodal_cl.metrics.similarities import multiply_rows, scale_rows
from bimodal_cl.scoring.encode_once import Encoder, distinct_texts, evaluation_mode, text_items
from bimodal_cl.scoring.share_progress import show_share

# The largest number of prompts whose features are in memory at once, and of similarities.
_PROMPTS_AT_ONCE = 4096
_BLOCK_ELEMENTS = 2**24


@dataclass(frozen=True)
class Classifier:
    """The text features of classes.

    Args:
        features: float32 ``[names, dim]``, unit norm, one row for all names with equal prompts, in the order of names.
        candidate_of_class: int64 ``[classes]``, the candidate of each class.
        class_of_candidate: int64 ``[candidates]``, the first class of each candidate.
        rows_of_candidate: int64 ``[candidates, most]``, the rows of ``features`` whose largest similarity is the
            candidate's, some of them repeated; None: candidates are the rows of ``features``.
    """

    features: Tensor
    candidate_of_class: Tensor
    class_of_candidate: Tensor
    rows_of_candidate: Tensor | None = None

    @property
    def num_candidates(self) -> int:
        """The number of candidates that are ranked."""
        return len(self.class_of_candidate)


def build_classifier(
    model: Encoder,
    classnames: Sequence[str | Sequence[str]],
    templates: Sequence[str],
    autocast: torch.dtype | None = None,
    show_progress: bool = False,
    shared: bool = False,
) -> Classifier:
    """Encode class prompts: a class's feature is the mean of its prompts' features, normalised again.

    Source: Radford et al. 2021, section 3.1.4 (prompt ensembling in the embedding space).

    Args:
        model: a dual encoder.
        classnames: one name per class, or several, of which the one most similar to an image counts for it.
        templates: prompts with ``{c}`` in place of the name.
        autocast: as :func:`bimodal_cl.scoring.encode_once.evaluation_mode`.
        show_progress: whether to show progress on stderr.
        shared: whether all ranks call this, to encode a part of the prompts each; every rank gets all features.

    Raises:
        UserError: there is no class or no template, or a template has no ``{c}``.
    """
    if not classnames or not templates:
        raise UserError(f"{len(classnames)} class names and {len(templates)} templates: at least one of each is needed")
    for template in templates:
        if "{c}" not in template:
            raise UserError(f"template '{template}' has no {{c}} where the class name goes")
    names = [(given,) if isinstance(given, str) else tuple(given) for given in classnames]
    distinct = sorted({name for each in names for name in each})
    row_of_name, features = _encode_names(model, distinct, templates, autocast, show_progress, shared)
    candidates: dict[tuple[int, ...], int] = {}
    first_classes: list[int] = []
    candidate_of_class = torch.zeros(len(names), dtype=torch.int64)
    for index in sorted(range(len(names)), key=lambda index: (names[index], index)):
        rows = tuple(sorted({row_of_name[name] for name in names[index]}))
        if rows not in candidates:
            candidates[rows] = len(candidates)
            first_classes.append(index)
        candidate_of_class[index] = candidates[rows]
    most = max(map(len, candidates))
    pooled = None if most == 1 else torch.tensor([rows + rows[:1] * (most - len(rows)) for rows in candidates])
    return Classifier(features, candidate_of_class, torch.tensor(first_classes), pooled)


def _encode_names(
    model: Encoder,
    names: Sequence[str],
    templates: Sequence[str],
    autocast: torch.dtype | None,
    show_progress: bool,
    shared: bool,
) -> tuple[dict[str, int], Tensor]:
    """Return the row of each name, which names with equal prompts share, and the features of the rows."""
    row_of_name: dict[str, int] = {}
    row_of_key: dict[tuple[Hashable, ...], int] = {}
    rows: list[Tensor] = []
    step = max(1, _PROMPTS_AT_ONCE // len(templates))
    with evaluation_mode(model, autocast) as device:
        remaining = iter(names)
        if show_progress:
            remaining = show_share(names, len(names) * len(templates), "prompts", lambda _: len(templates))
        for _ in range(0, len(names), step):
            prompts = distinct_texts(model, device, in_turn=shared)
            fresh = False
            for name in islice(remaining, step):
                items = text_items(model, [template.replace("{c}", name) for template in templates])
                key = tuple(key for key, _ in items)
                if key not in row_of_key:
                    row_of_key[key] = len(row_of_key)
                    fresh = True
                    for item in items:
                        prompts.add(*item)
                row_of_name[name] = row_of_key[key]
            if fresh:
                rows += [_mean_direction(each) for each in prompts.features().cpu().split(len(templates))]
    return row_of_name, torch.stack(rows).to(device)


def classify(classifier: Classifier, image_features: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Rank the candidates of every image.

    Args:
        classifier: from :func:`build_classifier`.
        image_features: float32 ``[images, dim]``.
        targets: int64 ``[images]``, the class of each.

    Returns:
        ``(ranks, predictions)``, int64 ``[images]``: the rank from 1 of the image's class, and the predicted class. The
        prediction is the image's own class at rank 1, else the first class of the best wrong candidate (among ties,
        the first by name).
    """
    wanted = classifier.candidate_of_class[targets]
    ranks, wrong = [], []
    start = 0
    for sims in _blocks_of_sims(classifier, image_features):
        here = wanted[start : start + len(sims)]
        ranks.append(class_ranks(sims, here))
        sims.scatter_(1, here[:, None], -torch.inf)
        wrong.append(sims.numpy().argmax(axis=1))  # numpy returns the first maximum, torch any of them
        start += len(sims)
    placed = np.concatenate(ranks)
    others = classifier.class_of_candidate.numpy()[np.concatenate(wrong)]
    return placed, np.where(placed == 1, targets.numpy(), others)


def score_classification(
    ranks: np.ndarray, predictions: np.ndarray, targets: np.ndarray, num_candidates: int
) -> dict[str, float]:
    """Compute ``acc1``, ``acc5`` (with at least 5 candidates) and ``mean_per_class_recall``.

    Args:
        ranks: int64 ``[images]``, from 1, the rank of each image's class.
        predictions: int64 ``[images]``, the predicted classes.
        targets: int64 ``[images]``, the true classes.
        num_candidates: among which the classes were ranked.

    Returns:
        Fractions in ``[0, 1]``.
    """
    shares = {f"acc{k}": int((ranks <= k).sum()) / len(ranks) for k in (1, 5) if k <= num_candidates}
    return {**shares, "mean_per_class_recall": mean_per_class_recall(predictions, targets)}


def class_similarities(classifier: Classifier, image_features: Tensor) -> Tensor:
    """Return exact similarities, float64 ``[images, classes]`` on the CPU, to score multi-label images."""
    sims = _pool(classifier, multiply_rows(scale_rows(image_features), scale_rows(classifier.features)).cpu())
    return sims[:, classifier.candidate_of_class]


def candidate_similarities(classifier: Classifier, image_features: Tensor) -> np.ndarray:
    """Return similarities, float32 ``[images, candidates]``, half the memory of exact ones."""
    return np.concatenate([sims.float().numpy() for sims in _blocks_of_sims(classifier, image_features)])


def _blocks_of_sims(classifier: Classifier, image_features: Tensor) -> Iterator[Tensor]:
    """Yield exact similarities of some images at a time, float64 ``[images, candidates]`` on the CPU."""
    candidates = scale_rows(classifier.features)
    for rows in image_features.split(max(1, _BLOCK_ELEMENTS // len(classifier.features))):
        yield _pool(classifier, multiply_rows(scale_rows(rows), candidates).cpu())


def _pool(classifier: Classifier, sims: Tensor) -> Tensor:
    """Return similarities ``[images, candidates]`` from those of the rows of features."""
    if classifier.rows_of_candidate is None:
        return sims
    first, *others = classifier.rows_of_candidate.unbind(dim=1)
    pooled = sims[:, first]
    for rows in others:
        pooled = torch.maximum(pooled, sims[:, rows])
    return pooled


def _mean_direction(features: Tensor) -> Tensor:
    """Return the normalised sum of unit-norm rows ``[prompts, dim]``; as integers, their order does not matter."""
    return nn.functional.normalize((features.double() * 2.0**26).round().sum(dim=0), dim=0).float()
