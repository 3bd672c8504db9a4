"""Encode the examples of a composition set with one model, and score its choices."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from bimodal_cl.errors import UserError

from ..datasets import dataset_name
from ..encode import ScoredModel, autocast_type
from ..results import build_result
from .examples import Example, ExampleImages

if TYPE_CHECKING:
    from bimodal_cl.scoring.composition import Choices
    from bimodal_cl.scoring.uncertainty import Resampled


def score_model(
    model: ScoredModel, examples: list[Example], arguments: argparse.Namespace
) -> tuple[dict[str, Any], Resampled]:
    """Return a model's result on examples, ready to be written, and its scores on resamples of them.

    Args:
        model: what is scored.
        examples: all with equally many images and captions; those with an image that cannot be read are left out.
        arguments: ``batch_size``, ``num_workers``, ``precision``, ``name``, ``data``, ``split``, ``examples``,
            ``language``.

    Raises:
        UserError: no example is left, or the model's towers differ in width.
    """
    from bimodal_cl.scoring.composition import (
        chance_of_composition,
        choose,
        encode_texts,
        resample_composition,
        score_composition,
    )
    from bimodal_cl.scoring.zero_shot import encode_labelled

    autocast = autocast_type(arguments.precision)
    encoded = encode_labelled(
        model.encoder,
        ExampleImages(examples),
        arguments.batch_size,
        arguments.num_workers,
        autocast,
        show_progress=True,
    )
    used, image_rows = _place_images(examples, encoded.targets.tolist())
    if not used:
        raise UserError(f"no example of {len(examples)} is left: {encoded.skipped[0]}")
    captions = [caption for example in used for caption in example.captions]
    text_rows = np.arange(len(captions)).reshape(len(used), -1)
    texts = encode_texts(model.encoder, captions, autocast)
    choices = choose(encoded.image_features, texts, image_rows, text_rows, [example.subset for example in used])
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
            "num_skipped": len(examples) - len(used),
        },
        provenance={
            "split": arguments.split,
            "precision": arguments.precision,
            "subsets": dict(Counter(example.subset for example in used)),
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
