"""Score retrieval in both directions, images by caption and captions by image, over all pairs of a folder of shards.

An image may have several captions: it is found by any of them, and each caption is a query of its own.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bimodal_cl.cli.arguments import natural_number
from bimodal_cl.cli.parser import Parser

from .datasets import dataset_name, require_folder
from .encode import (
    ScoredModel,
    add_model_arguments,
    autocast_type,
    open_model,
    resolve_device,
    result_folder,
)
from .pair_shards import open_pairs
from .results import (
    Scored,
    build_result,
    compare_results,
    describe_intervals,
    format_comparisons,
    format_table,
    half_width,
    make_folder,
    percent,
    percent_in_interval,
    write_result,
)

if TYPE_CHECKING:
    from bimodal_cl.data import Manifest
    from bimodal_cl.data.shards.faults import FaultCounts
    from bimodal_cl.scoring.retrieval import PairFeatures
    from bimodal_cl.scoring.uncertainty import Resampled

_COLUMNS = ("", "direction", "R@1", "R@5", "R@10", "mAP@R", "median rank", "mean rank", "RSUM")
_SHARES = ("recall@1", "recall@5", "recall@10", "mAP@R")
_DIRECTIONS = {"image": "text -> image", "text": "image -> text"}
_COMPARED = {
    "image_retrieval_recall@1": "text -> image R@1",
    "text_retrieval_recall@1": "image -> text R@1",
    "rsum": "RSUM",
}
_TOP = 5  # images shown for a caption
_AS_ONE = "; `bimodal-prep write` joins shards with one caption per sample"


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
        "--examples",
        type=natural_number,
        default=12,
        help="number of captions whose nearest images go into the results",
    )


def run(arguments: argparse.Namespace) -> None:
    """Score every model, write a result for each, and print a table."""
    require_folder(arguments.data)
    data = open_pairs(arguments.data, arguments.split)  # refuses data that do not fit before a model is loaded
    device = resolve_device(arguments.device)
    scored: list[Scored] = []
    written = []
    chance: dict[str, float] = {}
    for given in arguments.models:
        model = open_model(given, device, arguments.weights)
        folder = result_folder(model, given, arguments.to, arguments.models)
        make_folder(folder)
        pairs, faults = encode_shards(model, data, arguments)
        result, resampled = score_pairs(model, pairs, faults, data.folder, arguments)
        chance = chance_level(pairs)
        written.append(write_result(folder, result))
        scored.append(Scored(model.label(given), folder, result, resampled))
        counts = result["provenance"]["counts"]
    compare_results(scored)
    print(", ".join(f"{count:,} {name.removeprefix('num_').replace('_', ' ')}" for name, count in counts.items()))
    rows = [row for one in scored for row in _rows(one)]
    print(format_table(_COLUMNS, [*rows, *_chance_rows(chance)]))
    print(describe_intervals(scored[-1]))
    if comparisons := format_comparisons(scored, _COMPARED):
        print(f"\n{comparisons}\n")
    for line in notes_on_repeats(pairs):
        print(line)
    print(*written, sep="\n")


def notes_on_repeats(pairs: PairFeatures) -> list[str]:
    """Return a line for duplicate images and one for duplicate captions, whose ties lower the recall of any model."""
    lines = []
    for what, features in (("images", pairs.image_features), ("captions", pairs.text_features)):
        distinct = len({row.tobytes() for row in features.cpu().numpy()})
        if distinct < len(features):
            lines.append(
                f"note: only {distinct:,} of {len(features):,} {what} are distinct; equal ones tie, and a tie with the "
                f"right one counts against it{_AS_ONE if what == 'images' else ''}"
            )
    return lines


def encode_shards(
    model: ScoredModel, data: Manifest, arguments: argparse.Namespace
) -> tuple[PairFeatures, FaultCounts]:
    """Encode every image and caption of the shards, and count the faulty samples.

    Args:
        model: encodes them.
        data: the shards.
        arguments: ``batch_size``, ``num_workers``, ``precision``.
    """
    from bimodal_cl.cli.progress import progress
    from bimodal_cl.data import open_stream
    from bimodal_cl.scoring.retrieval import encode_pairs

    stream = open_stream(
        data,
        batch_size=arguments.batch_size,
        image_size=model.encoder.image_size,
        num_workers=arguments.num_workers,
        train=False,
        eval_transform=model.encoder.transform,
    )
    batches = progress(stream, stream.steps, "batches", "encode pairs")
    pairs = encode_pairs(model.encoder, batches, autocast=autocast_type(arguments.precision))
    return pairs, stream.report()


def score_pairs(
    model: ScoredModel, pairs: PairFeatures, faults: FaultCounts, folder: Path, arguments: argparse.Namespace
) -> tuple[dict[str, Any], Resampled]:
    """Return a model's result on encoded pairs, ready to be written, and its scores on resamples of them.

    Args:
        model: what is scored.
        pairs: its features.
        faults: counts of the samples that were left out.
        folder: the shards' folder.
        arguments: ``name``, ``precision``, ``examples``.
    """
    from bimodal_cl.scoring.retrieval import rank_pairs, score_retrieval
    from bimodal_cl.scoring.uncertainty import resample_retrieval

    ranked = rank_pairs(pairs)
    resampled = resample_retrieval(ranked, pairs.image_of_text.numpy())
    result = build_result(
        task="zeroshot_retrieval",
        dataset=arguments.name or dataset_name(folder),
        model=model,
        metrics=score_retrieval(ranked),
        resampled=resampled,
        data=str(folder),
        counts={"num_images": len(pairs.image_ids), "num_texts": len(pairs.text_ids), "num_skipped": faults.total},
        provenance={"precision": arguments.precision, "skipped": [str(fault) for fault in faults.examples]},
        examples=collect_examples(pairs, ranked.image_ranks, arguments.examples),
    )
    return result, resampled


def chance_level(pairs: PairFeatures) -> dict[str, float]:
    """Return the mean scores of a random order, by the names of the metrics; ranks have none."""
    from bimodal_cl.metrics import chance_precision, chance_recall
    from bimodal_cl.scoring.retrieval import RETRIEVAL_KS

    captions_of_image = np.bincount(pairs.image_of_text.numpy())
    num_right = {"image": np.ones(1, dtype=np.int64), "text": captions_of_image[captions_of_image > 0]}
    num_candidates = {"image": len(pairs.image_ids), "text": len(pairs.text_ids)}
    recalls = {
        f"{wanted}_retrieval_recall@{k}": chance_recall(num_candidates[wanted], num_right[wanted], k)
        for wanted in ("image", "text")
        for k in RETRIEVAL_KS
    }
    precisions = {
        f"{wanted}_retrieval_mAP@R": chance_precision(num_candidates[wanted], num_right[wanted])
        for wanted in ("image", "text")
    }
    return {**recalls, **precisions, "rsum": math.fsum(recalls.values())}


def collect_examples(pairs: PairFeatures, image_ranks: np.ndarray, count: int) -> list[dict[str, Any]]:
    """Return captions with their nearest images: successes, near misses and failures, spread over the data.

    Args:
        pairs: the encoded pairs.
        image_ranks: int64 ``[texts]``, from 1, of every caption's image.
        count: maximum number of captions, at most one per image.

    Returns:
        ``caption``, ``text_id``, ``image_id`` (the right one), ``rank`` and ``top``: the nearest images' ids, best
        first, in the order that the rank counts in (the right image after those that tie with it).
    """
    from bimodal_cl.metrics.similarities import exact_similarities

    chosen = choose_spread(image_ranks, pairs.image_of_text.numpy(), count)
    examples = []
    for text in chosen:
        owner = int(pairs.image_of_text[text])
        sims = exact_similarities(pairs.text_features[text : text + 1], pairs.image_features)[0].cpu().numpy()
        order = np.lexsort((np.arange(len(sims)) == owner, -sims))[:_TOP]
        examples.append(
            {
                "caption": pairs.captions[text],
                "text_id": int(pairs.text_ids[text]),
                "image_id": int(pairs.image_ids[owner]),
                "rank": int(image_ranks[text]),
                "top": pairs.image_ids[order].tolist(),
            }
        )
    return examples


def choose_spread(image_ranks: np.ndarray, image_of_text: np.ndarray, count: int) -> list[int]:
    """Choose texts of different images, in equal parts: those of rank 1, of ranks 2 to 10, and of higher ranks.

    Args:
        image_ranks: int64 ``[texts]``, from 1.
        image_of_text: int64 ``[texts]``.
        count: maximum number of texts.

    Returns:
        Rows of texts: successes first, each kind evenly spaced over the data. The choice is deterministic.
    """
    _, first_texts = np.unique(image_of_text, return_index=True)
    ranks = image_ranks[first_texts]
    kinds = [first_texts[ranks == 1], first_texts[(ranks > 1) & (ranks <= 10)], first_texts[ranks > 10]]
    shares = [0, 0, 0]
    while sum(shares) < min(count, len(first_texts)):
        open_kinds = [kind for kind in range(3) if shares[kind] < len(kinds[kind])]
        shares[min(open_kinds, key=lambda kind: shares[kind])] += 1
    return [
        int(texts[place])
        for texts, share in zip(kinds, shares, strict=True)
        if share
        for place in np.linspace(0, len(texts) - 1, share).round().astype(int)
    ]


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
