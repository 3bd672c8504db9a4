"""Score retrieval in both directions, images by caption and captions by image, over all pairs of a folder of shards.

An image may have several captions: it is found by any of them, and each caption is a query of its own.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bimodal_cl.cli.arguments import natural_number
from bimodal_cl.cli.parser import Parser
from bimodal_cl.errors import UserError

from ..datasets import require_folder
from ..encode import ScoredModel, add_model_arguments
from ..features.encoded import encode_shards
from ..features.identity import hash_shards
from ..pair_shards import open_pairs
from ..results import Scored, half_width, percent, percent_in_interval
from ..score_models import Score, Summary, score_models
from .encoded import EncodedPairs
from .scores import chance_level, notes_on_repeats, score_pairs

if TYPE_CHECKING:
    from bimodal_cl.scoring.retrieval import PairFeatures

_COLUMNS = ("", "direction", "R@1", "R@5", "R@10", "mAP@R", "median rank", "mean rank", "RSUM")
_SHARES = ("recall@1", "recall@5", "recall@10", "mAP@R")
_DIRECTIONS = {"image": "text -> image", "text": "image -> text"}
_COMPARED = {
    "image_retrieval_recall@1": "text -> image R@1",
    "text_retrieval_recall@1": "image -> text R@1",
    "rsum": "RSUM",
}


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ``bimodal-eval retrieval``."""
    add_model_arguments(parser)
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        required=True,
        help="shards with their manifest.json, a folder of splits of them, or CLIP_benchmark's wds_ layout",
    )
    parser.add_argument("--split", default="test", help="the split to score, if DIR itself has no manifest.json")
    parser.add_argument(
        "--features",
        metavar="DIR",
        type=Path,
        help="score runs of data.features on what `bimodal-prep encode` has encoded of the data, without the towers",
    )
    parser.add_argument(
        "--examples",
        type=natural_number,
        default=12,
        help="number of captions whose nearest images, and of images whose nearest captions, go into the results",
    )


def run(arguments: argparse.Namespace) -> None:
    """Score every model, write a result for each, and print a table."""
    require_folder(arguments.data)
    data = open_pairs(arguments.data, arguments.split)  # refuses data that do not fit before a model is loaded
    if arguments.features is not None and arguments.cache is not None:
        raise UserError("--cache has no effect with --features, which are encoded already: leave one of them out")
    encoded = None if arguments.features is None else EncodedPairs.open(arguments.features, data)
    last: list[PairFeatures] = []

    def encode(model: ScoredModel) -> Score:
        pairs, faults = (
            encode_shards(model, data, arguments) if encoded is None else encoded.encode(model, arguments.precision)
        )
        last[:] = [pairs]
        described = {} if encoded is None else {"encoded_features": encoded.describe()}
        return lambda: score_pairs(model, pairs, faults, data.folder, arguments, **described)

    score_models(arguments, encode, lambda scored: _summarize(scored, last[0]), partial(hash_shards, data))


def _summarize(scored: list[Scored], pairs: PairFeatures) -> Summary:
    """Return what the terminal shows of some models' results on the same pairs."""
    counts = scored[-1].result["provenance"]["counts"]
    size = ", ".join(f"{count:,} {name.removeprefix('num_').replace('_', ' ')}" for name, count in counts.items())
    rows = [row for one in scored for row in _rows(one)]
    rows += _chance_rows(chance_level(pairs))
    return Summary([size], _COLUMNS, rows, compared=_COMPARED, after=notes_on_repeats(pairs))


def _rows(scored: Scored) -> list[list[str]]:
    """Return the two rows of a model in the table; RSUM is for both directions."""
    rows = []
    result, metrics = scored.result, scored.result["metrics"]
    for wanted, direction in _DIRECTIONS.items():
        shares = [percent_in_interval(result, f"{wanted}_retrieval_{name}") for name in _SHARES]
        ranks = [f"{metrics[f'{wanted}_retrieval_{name}']:,.4g}" for name in ("median_rank", "mean_rank")]
        total = f"{100 * metrics['rsum']:.1f} ± {half_width(result, 'rsum')}" if wanted == "image" else ""
        rows.append([scored.label, direction, *shares, *ranks, total])
    return rows


def _chance_rows(chance: dict[str, float]) -> list[list[str]]:
    """Return the two rows of the level of chance, which has no ranks."""
    rows = []
    for wanted, direction in _DIRECTIONS.items():
        shares = [percent(chance[f"{wanted}_retrieval_{name}"]) for name in _SHARES]
        rows.append(["chance", direction, *shares, "", "", f"{100 * chance['rsum']:.1f}" if wanted == "image" else ""])
    return rows
