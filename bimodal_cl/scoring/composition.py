"""Score compositional understanding: a few captions that differ in their order or in one word, for one image or two.

Image ``i`` of an example belongs to its caption ``i``; further captions describe none of the images. The three scores
are those of Winoground (Thrush et al. 2022, "Winoground: Probing Vision and Language Models for Visio-Linguistic
Compositionality", section 4). An example with one image is a choice of its caption, as in SugarCrepe (Hsieh et al.
2023), where they are all the same. A tie is a miss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bimodal_cl.metrics.bootstrap import bootstrap, weighted_class_recalls
from bimodal_cl.metrics.similarities import pair_similarities
from bimodal_cl.scoring.encode_once import Encoder, distinct_texts, evaluation_mode, text_items
from bimodal_cl.scoring.outcomes import hash_queries
from bimodal_cl.scoring.retrieval import require_one_width
from bimodal_cl.scoring.uncertainty import Resampled

_TEXTS_TOKENIZED_AT_ONCE = 1024


@dataclass(frozen=True)
class Choices:
    """What a model chose in every example.

    Attributes:
        sims: float64 ``[examples, images, captions]``.
        subsets: the subset of every example.
    """

    sims: np.ndarray
    subsets: Sequence[str]

    @property
    def text_hits(self) -> np.ndarray:
        """Return bool ``[examples]``: every image is more similar to its own caption than to any other."""
        return _own_is_first(self.sims)

    @property
    def image_hits(self) -> np.ndarray:
        """Return bool ``[examples]``: every caption of an image is more similar to it than to any other image."""
        return _own_is_first(self.sims.swapaxes(1, 2))

    def hits(self) -> dict[str, np.ndarray]:
        """Return bool ``[examples]`` of the scores that an example has; ``acc`` asks for all choices."""
        text, image = self.text_hits, self.image_hits
        if self.sims.shape[1] == 1:
            return {"acc": text}
        return {"text_acc": text, "image_acc": image, "acc": text & image}


def encode_texts(
    model: Encoder, texts: Sequence[str], autocast: torch.dtype | None = None, shared: bool = False
) -> Tensor:
    """Encode texts, each distinct one once.

    Args:
        model: a dual encoder.
        texts: at least one.
        autocast: as ``bimodal_cl.scoring.encode_once.evaluation_mode``.
        shared: whether all ranks call this, to encode a part each; every rank gets all features.

    Returns:
        float32 ``[texts, dim]``, unit norm, on the model's device.
    """
    with evaluation_mode(model, autocast) as device:
        encoded = distinct_texts(model, device, in_turn=shared)
        for start in range(0, len(texts), _TEXTS_TOKENIZED_AT_ONCE):
            for item in text_items(model, texts[start : start + _TEXTS_TOKENIZED_AT_ONCE]):
                encoded.add(*item)
        return encoded.features()


def choose(
    image_features: Tensor, text_features: Tensor, image_rows: np.ndarray, text_rows: np.ndarray, subsets: Sequence[str]
) -> Choices:
    """Compare the images of every example with its captions.

    Args:
        image_features: ``[all images, dim]``, unit norm.
        text_features: ``[all texts, dim]``.
        image_rows: int64 ``[examples, images]``, rows of ``image_features``.
        text_rows: int64 ``[examples, captions]``, rows of ``text_features``.
        subsets: the subset of every example.

    Raises:
        UserError: the two kinds of features differ in their width.
    """
    require_one_width(image_features, text_features)
    shape = (*image_rows.shape, text_rows.shape[1])
    rows = np.broadcast_to(image_rows[:, :, None], shape).reshape(-1)
    columns = np.broadcast_to(text_rows[:, None, :], shape).reshape(-1)
    device = image_features.device
    pairs = (torch.from_numpy(each.copy()).to(device) for each in (rows, columns))
    sims = pair_similarities(image_features, text_features.to(device), *pairs)
    return Choices(sims.cpu().numpy().reshape(shape), subsets)


def score_composition(choices: Choices) -> dict[str, float]:
    """Return the fractions of examples that a model gets right, in ``[0, 1]``.

    ``acc`` asks for all choices of an example (Winoground's group score); with two images, ``text_acc`` for the caption
    of each image and ``image_acc`` for the image of each caption. These are CLIP_benchmark's names. Of several subsets,
    each is the mean over the subsets, and ``acc_SUBSET`` are theirs.
    """
    return {name: float(values[0]) for name, values in _scores(choices, np.ones((1, len(choices.sims)), int)).items()}


def resample_composition(choices: Choices, captions: Sequence[str]) -> Resampled:
    """Resample the scores of :func:`score_composition`; examples are drawn.

    Args:
        choices: what a model chose.
        captions: all captions, which tell data sets apart.
    """
    samples = bootstrap(lambda weights: _scores(choices, weights), len(choices.sims))
    data = hash_queries(np.array(choices.sims.shape), captions)
    return Resampled(samples, "examples", len(choices.sims), data)


def chance_of_composition(choices: Choices) -> dict[str, float]:
    """Return the scores of similarities in random order, by the names of :func:`score_composition`."""
    _, images, captions = choices.sims.shape
    if images == 1:
        return dict.fromkeys(score_composition(choices), 1 / captions)
    # The two right pairs of four come before the two wrong ones in 4 of 24 orders.
    return {name: {"text_acc": 1 / 4, "image_acc": 1 / 4}.get(name, 1 / 6) for name in score_composition(choices)}


def _scores(choices: Choices, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores on resamples, float64 ``[resamples]``; a subset that was not drawn keeps its score."""
    names, subset_of_example = np.unique(np.array(choices.subsets), return_inverse=True)
    found = {name: weighted_class_recalls(weights, hits, subset_of_example) for name, hits in choices.hits().items()}
    hits = choices.hits()["acc"]
    for index, name in enumerate(names if len(names) > 1 else ()):
        inside = subset_of_example == index
        drawn = weights[:, inside]
        share = (drawn * hits[inside]).sum(axis=1) / np.maximum(drawn.sum(axis=1), 1)
        found[f"acc_{name}"] = np.where(drawn.any(axis=1), share, hits[inside].mean())
    return found


def _own_is_first(sims: np.ndarray) -> np.ndarray:
    """Return bool ``[examples]``: in every row that has a partner, the partner's column holds the only maximum."""
    partners = np.arange(min(sims.shape[1:]))
    own = sims[:, partners, partners]
    others = sims[:, partners].copy()
    others[:, partners, partners] = -np.inf
    return (own > others.max(axis=2)).all(axis=1)
