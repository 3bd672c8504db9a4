"""Score retrieval in both directions among the encoded pairs of one model."""

from __future__ import annotations

import argparse
import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..datasets import dataset_name
from ..encode import ScoredModel
from ..results import build_result
from .examples import collect_caption_examples, collect_examples

if TYPE_CHECKING:
    from bimodal_cl.data.shards.faults import FaultCounts
    from bimodal_cl.scoring.retrieval import PairFeatures
    from bimodal_cl.scoring.uncertainty import Resampled

_AS_ONE = "; `bimodal-prep write` joins shards with one caption per sample"


def notes_on_repeats(pairs: PairFeatures) -> list[str]:
    """Return a line for duplicate images and one for duplicate captions, whose ties lower the recall of any model."""
    lines = []
    for what, features in (("images", pairs.image_features), ("captions", pairs.text_features)):
        distinct = len({hashlib.sha256(row).digest() for row in features.cpu().numpy()})
        if distinct < len(features):
            lines.append(
                f"note: only {distinct:,} of {len(features):,} {what} are distinct; equal ones tie, and a tie with the "
                f"right one counts against it{_AS_ONE if what == 'images' else ''}"
            )
    return lines


def score_pairs(
    model: ScoredModel,
    pairs: PairFeatures,
    faults: FaultCounts,
    folder: Path,
    arguments: argparse.Namespace,
    **provenance: Any,
) -> tuple[dict[str, Any], Resampled]:
    """Return a model's result on encoded pairs, ready to be written, and its scores on resamples of them.

    Args:
        model: what is scored.
        pairs: its features.
        faults: counts of the samples that were left out.
        folder: the shards' folder.
        arguments: ``name``, ``precision``, ``examples``.
        provenance: what else the result records about its making.
    """
    from bimodal_cl.scoring.retrieval import rank_pairs, score_retrieval
    from bimodal_cl.scoring.uncertainty import resample_retrieval

    ranked = rank_pairs(pairs)
    resampled = resample_retrieval(ranked, pairs.image_of_text.numpy(), pairs.captions)
    result = build_result(
        task="zeroshot_retrieval",
        dataset=arguments.name or dataset_name(folder),
        model=model,
        metrics=score_retrieval(ranked),
        resampled=resampled,
        data=str(folder),
        counts={"num_images": len(pairs.image_ids), "num_texts": len(pairs.text_ids), "num_skipped": faults.total},
        language=arguments.language,
        provenance={
            "precision": arguments.precision,
            "skipped": [str(fault) for fault in faults.examples],
            **provenance,
        },
        examples=collect_examples(pairs, ranked.image_ranks, arguments.examples),
        caption_examples=collect_caption_examples(pairs, ranked, arguments.examples),
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
