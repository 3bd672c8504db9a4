"""Measure peak memory and time of scoring retrieval among random features, in a process of its own.

The work is what ``bimodal-eval retrieval`` does once the pairs are encoded: ranks in both directions, mAP@R, bootstrap
intervals, examples, repeats. The peak is the process's own (``ru_maxrss``): Python, torch and the features included.

On a part of the data, ranks and mAP@R are compared with those from the whole matrix of the same similarities, by
sorting, and with those from a plain float64 product, whose last bits depend on the order of its sums. Both are timed.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bimodal_cl.metrics import RankedQueries, rank_queries
from bimodal_cl.metrics.similarities import exact_similarities
from bimodal_cl.scoring.retrieval import PairFeatures
from eval.encode import ScoredModel
from eval.retrieval.scores import notes_on_repeats, score_pairs
from tests.benchmarks.measure.fresh_process import in_fresh_process
from tests.benchmarks.measure.machine import num_threads
from tests.benchmarks.measure.table import describe_bytes, format_table
from tests.benchmarks.measure.timing import describe_range, describe_time, time_in_turn

_ROUNDS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--images", type=int, default=25_000, help="images that are ranked")
    parser.add_argument("--part", type=int, default=2_000, help="images that are also ranked by the whole matrix")
    parser.add_argument("--captions", type=int, default=5, help="captions of each image")
    parser.add_argument("--dim", type=int, default=512, help="width of the features")


def run(arguments: argparse.Namespace) -> None:
    """Print the peak memory of all images and captions, and the comparison on the part."""
    images, part, dim = (500, 200, 32) if arguments.quick else (arguments.images, arguments.part, arguments.dim)
    threads, captions = num_threads(arguments.threads), arguments.captions
    before, peak, seconds = in_fresh_process(score_random_features, images, captions, dim, threads)
    matrix = 8 * images * images * captions
    print(f"\n{images:,} images x {images * captions:,} captions, D = {dim}")
    rows = [
        ["before the scoring (Python, torch, features)", describe_bytes(before), ""],
        ["peak of the process", describe_bytes(peak), describe_time(seconds)],
        ["the matrix in float64 alone, never held", describe_bytes(matrix), ""],
    ]
    print(format_table(["", "memory", "time"], rows))
    print(f"\n{part:,} images x {part * captions:,} captions, D = {dim}, against the whole matrix")
    print(in_fresh_process(compare_with_matrix, part, captions, dim, threads))


def score_random_features(num_images: int, captions: int, dim: int, threads: int) -> tuple[int, int, float]:
    """Score random features as the command does.

    Returns:
        The process's peak memory before and after, in bytes, and the seconds in between.
    """
    torch.set_num_threads(threads)
    pairs = random_pairs(num_images, captions, dim)
    before, start = peak_of_process(), time.perf_counter()
    arguments = argparse.Namespace(name="random", precision="float32", language="en", examples=12)
    model: Any = ScoredModel(encoder=None, name="random", pretrained="none")  # type: ignore[arg-type]
    score_pairs(model, pairs, _NoFaults(), Path(), arguments)  # type: ignore[arg-type]
    notes_on_repeats(pairs)
    return before, peak_of_process(), time.perf_counter() - start


def compare_with_matrix(num_images: int, captions: int, dim: int, threads: int) -> str:
    """Return a table: ours and the whole matrix on the same random features, outcomes and times."""
    torch.set_num_threads(threads)
    pairs = random_pairs(num_images, captions, dim)
    images, texts, owners = pairs.image_features, pairs.text_features, pairs.image_of_text.numpy()
    work = {
        "ours": lambda: rank_queries(images, texts, owners),
        "whole matrix, same similarities": lambda: rank_by_matrix(exact_similarities(images, texts).numpy(), owners),
        "whole matrix, float64 product": lambda: rank_by_matrix((images.double() @ texts.double().T).numpy(), owners),
    }
    found = {name: piece() for name, piece in work.items()}
    times = time_in_turn(work, _ROUNDS)
    rows = [[name, *describe_range(times[name]), *_differences(found[name], found["ours"])] for name in work]
    return format_table(["", "time", "range", "ranks that differ", "mAP@R that differ"], rows)


def rank_by_matrix(sims: np.ndarray, owners: np.ndarray) -> RankedQueries:
    """Rank by sorting whole rows and columns of a matrix; a wrong candidate that ties with a right one is before it.

    Args:
        sims: float64 ``[images, texts]``.
        owners: int64 ``[texts]``, the image of every caption.
    """
    image_ranks = []
    for text, owner in enumerate(owners):
        column = sims[:, text]
        image_ranks.append(int((column >= column[owner]).sum()))
    text_ranks, precisions = [], []
    for image in np.unique(owners):
        right = owners == image
        right = right[np.lexsort((right, -sims[image]))]
        text_ranks.append(1 + int(right.argmax()))
        first = right[: right.sum()]
        precisions.append(float((first.cumsum() / np.arange(1, len(first) + 1) * first).sum() / len(first)))
    return RankedQueries(np.array(image_ranks), np.array(text_ranks), np.array(precisions))


def random_pairs(num_images: int, captions: int, dim: int) -> PairFeatures:
    """Return unit-norm random features, with captions in the order of their images."""
    num_texts = num_images * captions
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(rows, dim, generator=generator) for rows in (num_images, num_texts)]
    for rows in features:
        for some in rows.split(4096):
            some /= some.norm(dim=1, keepdim=True)
    return PairFeatures(
        image_features=features[0],
        text_features=features[1],
        image_ids=torch.arange(num_images),
        text_ids=torch.arange(num_texts),
        image_of_text=torch.arange(num_images).repeat_interleave(captions),
        captions=[f"caption {text}" for text in range(num_texts)],
    )


def peak_of_process() -> int:
    """Return the most bytes that this process has held (``ru_maxrss``: KiB on Linux, bytes on macOS)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


class _NoFaults:
    total = 0
    examples: tuple[str, ...] = ()


def _differences(found: RankedQueries, ours: RankedQueries) -> list[str]:
    ranks = [int((getattr(found, name) != getattr(ours, name)).sum()) for name in ("image_ranks", "text_ranks")]
    precisions = int((np.abs(found.text_precisions - ours.text_precisions) > 1e-12).sum())
    queries = len(ours.image_ranks) + len(ours.text_ranks)
    return [f"{sum(ranks)} of {queries:,}", f"{precisions} of {len(ours.text_ranks):,}"]
