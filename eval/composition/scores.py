"""Encode the examples of a composition set with one model, and score its choices."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bimodal_cl.errors import UserError

from ..datasets import dataset_name
from ..encode import ScoredModel
from ..features.encoded import encode_captions, encode_images
from ..results import build_result
from .examples import Example, ExampleImages

if TYPE_CHECKING:
    from torch import Tensor

    from bimodal_cl.scoring.composition import Choices
    from bimodal_cl.scoring.uncertainty import Resampled


@dataclass(frozen=True)
class EncodedExamples:
    """The features of examples that can be used.

    Attributes:
        used: those whose images can all be read.
        image_features: float32 ``[all images, dim]``, unit norm.
        image_rows: int64 ``[examples, images]``, rows of ``image_features``.
        text_features: float32 ``[all captions, dim]``, unit norm, in the order of the examples.
        skipped: a message for each image that cannot be read.
    """

    used: list[Example]
    image_features: Tensor
    image_rows: np.ndarray
    text_features: Tensor
    skipped: list[str]


def encode_examples(model: ScoredModel, examples: list[Example], arguments: argparse.Namespace) -> EncodedExamples:
    """Encode the images and captions of examples; all processes share the work.

    Args:
        model: what is scored.
        examples: all with equally many images and captions; those with an image that cannot be read are left out.
        arguments: ``batch_size``, ``num_workers``, ``precision``, ``cache``.

    Raises:
        UserError: no example is left.
    """
    images = encode_images(model, ExampleImages(examples), arguments)
    used, image_rows = _place_images(examples, images.kept.tolist())
    if not used:
        raise UserError(f"no example of {len(examples)} is left: {images.skipped[0]}")
    texts = encode_captions(model, list_captions(used), arguments)
    return EncodedExamples(used, images.image_features, image_rows, texts, images.skipped)


def list_captions(examples: list[Example]) -> list[str]:
    """Return all captions of examples, in their order."""
    return [caption for example in examples for caption in example.captions]


def score_model(
    model: ScoredModel, encoded: EncodedExamples, num_examples: int, arguments: argparse.Namespace
) -> tuple[dict[str, Any], Resampled]:
    """Return a model's result on examples, ready to be written, and its scores on resamples of them.

    Args:
        model: what is scored.
        encoded: the examples' features.
        num_examples: how many there are, with those that cannot be used.
        arguments: ``precision``, ``name``, ``data``, ``split``, ``examples``, ``language``.

    Raises:
        UserError: the model's towers differ in width.
    """
    from bimodal_cl.scoring.composition import (
        chance_of_composition,
        choose,
        resample_composition,
        score_composition,
    )

    used, image_rows, captions = encoded.used, encoded.image_rows, list_captions(encoded.used)
    text_rows = np.arange(len(captions)).reshape(len(used), -1)
    subsets = [example.subset for example in used]
    choices = choose(encoded.image_features, encoded.text_features, image_rows, text_rows, subsets)
    resampled = resample_composition(choices, captions)
    result = build_result(
        task="image_caption_selection",
        dataset=arguments.name or dataset_name(arguments.data),
        model=model,
        metrics=score_composition(choices),
        resampled=resampled,
        data=str(arguments.data),
        counts={
            "num_examples": len(used),
            "num_images": image_rows.size,
            "num_texts": len(captions),
            "num_skipped": num_examples - len(used),
        },
        provenance={
            "split": arguments.split,
            "precision": arguments.precision,
            "subsets": dict(Counter(subsets)),
            "chance": chance_of_composition(choices),
            "skipped": encoded.skipped,
        },
        language=arguments.language,
        examples=collect_misses(used, choices, arguments.examples),
    )
    return result, resampled


def collect_misses(examples: list[Example], choices: Choices, count: int) -> list[dict[str, Any]]:
    """Return examples that the model got wrong, evenly spaced over the data.

    Args:
        examples: that were scored.
        choices: what the model chose.
        count: maximum number of misses.

    Returns:
        ``subset``, ``key``, ``images`` (file names), ``captions``, ``similarities`` (a row for each image, a column for
        each caption), ``text_hit`` and ``image_hit``.
    """
    text_hits, image_hits = choices.text_hits, choices.image_hits
    misses = np.flatnonzero(~(text_hits & image_hits))
    places = np.linspace(0, len(misses) - 1, min(count, len(misses))).round().astype(int)
    return [
        {
            "subset": examples[row].subset,
            "key": examples[row].key,
            "images": [image.name for image in examples[row].images],
            "captions": list(examples[row].captions),
            "similarities": choices.sims[row].tolist(),
            "text_hit": bool(text_hits[row]),
            "image_hit": bool(image_hits[row]),
        }
        for row in misses[places].tolist()
    ]


def _place_images(examples: list[Example], encoded: list[int]) -> tuple[list[Example], np.ndarray]:
    """Return the examples all of whose images were encoded, and the rows of these, ``[examples, images]``."""
    row_of_image = {image: row for row, image in enumerate(encoded)}
    used, rows, first = [], [], 0
    for example in examples:
        numbers = range(first, first + len(example.images))
        first += len(example.images)
        if all(number in row_of_image for number in numbers):
            used.append(example)
            rows.append([row_of_image[number] for number in numbers])
    return used, np.array(rows, dtype=np.int64)
