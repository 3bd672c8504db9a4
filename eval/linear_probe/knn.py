"""Classify labelled images by the labels of their nearest training images, without training anything.

The K most similar training images vote, each with the weight exp(cosine / tau), as InstDisc and DINO do. Images with
several classes (labels in .npy) are scored by mean average precision. The data are as for zero-shot, with a training
split.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bimodal_cl.cli.arguments import positive_integer
from bimodal_cl.cli.parser import Parser
from bimodal_cl.errors import UserError

from ..encode import ScoredModel, add_model_arguments
from ..score_models import Score, score_models
from ..zero_shot.class_scores import score_label_sets
from .scores import build_probe_result, score_classes, summarize
from .splits import Encoded, Split, add_split_arguments, encode_split, hash_splits, open_splits

if TYPE_CHECKING:
    from bimodal_cl.scoring.uncertainty import Resampled


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ``bimodal-eval knn``."""
    add_model_arguments(parser)
    add_split_arguments(parser)
    parser.add_argument("--k", type=positive_integer, default=20, help="number of neighbours that vote")
    parser.add_argument("--tau", type=float, default=0.07, help="temperature of the votes, above 0")


def run(arguments: argparse.Namespace) -> None:
    """Score every model, write a result for each, and print a table.

    Raises:
        UserError: ``--tau`` is not above 0, or the training split has fewer than ``--k`` images.
    """
    if not arguments.tau > 0:
        raise UserError(f"--tau {arguments.tau}: must be above 0")
    splits = open_splits(arguments)
    train = splits["train"]
    _require_images(arguments.k, len(train.labelled), train.name)

    def encode(model: ScoredModel) -> Score:
        encoded = {part: encode_split(model, split, arguments) for part, split in splits.items()}
        return lambda: _score(model, splits, encoded, arguments)

    how = f"by {arguments.k} neighbours among {len(train.labelled):,} images of {train.name}"
    score_models(arguments, encode, lambda scored: summarize(scored, "", how), lambda: hash_splits(*splits.values()))


def _score(
    model: ScoredModel, splits: Mapping[str, Split], encoded: Mapping[str, Encoded], arguments: argparse.Namespace
) -> tuple[dict[str, Any], Resampled]:
    from bimodal_cl.scoring.probes.neighbours import neighbour_votes

    train, known, asked = splits["train"], encoded["train"].part, encoded["test"].part
    _require_images(arguments.k, len(known.targets), train.name)
    classnames = train.labelled.classnames
    votes = neighbour_votes(known.features, known.targets, asked.features, len(classnames), arguments.k, arguments.tau)
    if train.several:
        scores = score_label_sets(votes, asked.targets, classnames)
    else:
        classes = known.classes()
        scores = score_classes(votes[:, classes], classes, asked, classnames)
    settings = {"k": arguments.k, "tau": arguments.tau}
    result = build_probe_result("knn", model, scores, splits, encoded, arguments, settings)
    return result, scores.resampled


def _require_images(k: int, num_images: int, split: str) -> None:
    if num_images < k:
        raise UserError(f"--k {k}: the split {split} has only {num_images} images")
