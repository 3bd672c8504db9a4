"""Choose queries whose nearest answers a report shows: successes, near misses and failures, in both directions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from bimodal_cl.metrics import RankedQueries
    from bimodal_cl.scoring.retrieval import PairFeatures

_TOP = 5  # answers shown for a query
_AT_ONCE = 16  # queries whose similarities with all candidates are held at once


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
    owners = pairs.image_of_text.numpy()
    chosen = choose_spread(image_ranks, owners, count)
    images = np.arange(len(pairs.image_ids))
    examples = []
    for text, sims in _similarities(pairs.text_features, chosen, pairs.image_features):
        examples.append(
            {
                "caption": pairs.captions[text],
                "text_id": int(pairs.text_ids[text]),
                "image_id": int(pairs.image_ids[owners[text]]),
                "rank": int(image_ranks[text]),
                "top": pairs.image_ids[_nearest(sims, images == owners[text])].tolist(),
            }
        )
    return examples


def collect_caption_examples(pairs: PairFeatures, ranked: RankedQueries, count: int) -> list[dict[str, Any]]:
    """Return images with their nearest captions, chosen as in :func:`collect_examples`.

    Args:
        pairs: the encoded pairs.
        ranked: the outcome of every query.
        count: maximum number of images.

    Returns:
        ``image_id``; ``text_ids`` and ``captions``, all the right ones; ``rank`` of the best of them;
        ``average_precision`` at R; ``top`` and ``top_captions``: the nearest captions' ids and texts, best first, in
        the order that the rank counts in (right captions after those that tie with them).
    """
    owners = pairs.image_of_text.numpy()
    queried = np.unique(owners)
    chosen = choose_spread(ranked.text_ranks, np.arange(len(queried)), count)
    examples = []
    images = queried[chosen].tolist()
    for place, (image, sims) in zip(
        chosen, _similarities(pairs.image_features, images, pairs.text_features), strict=True
    ):
        right = owners == image
        own, nearest = np.flatnonzero(right), _nearest(sims, right)
        examples.append(
            {
                "image_id": int(pairs.image_ids[image]),
                "text_ids": pairs.text_ids[own].tolist(),
                "captions": [pairs.captions[text] for text in own],
                "rank": int(ranked.text_ranks[place]),
                "average_precision": float(ranked.text_precisions[place]),
                "top": pairs.text_ids[nearest].tolist(),
                "top_captions": [pairs.captions[text] for text in nearest],
            }
        )
    return examples


def choose_spread(ranks: np.ndarray, group_of_query: np.ndarray, count: int) -> list[int]:
    """Choose queries of different groups, in equal parts: those of rank 1, of ranks 2 to 10, and of higher ranks.

    Args:
        ranks: int64 ``[queries]``, from 1.
        group_of_query: int64 ``[queries]``; the first query of each group can be chosen.
        count: maximum number of queries.

    Returns:
        Rows of queries: successes first, each kind evenly spaced over the data. The choice is deterministic.
    """
    _, first = np.unique(group_of_query, return_index=True)
    found = ranks[first]
    kinds = [first[found == 1], first[(found > 1) & (found <= 10)], first[found > 10]]
    shares = [0, 0, 0]
    while sum(shares) < min(count, len(first)):
        open_kinds = [kind for kind in range(3) if shares[kind] < len(kinds[kind])]
        shares[min(open_kinds, key=lambda kind: shares[kind])] += 1
    return [
        int(queries[place])
        for queries, share in zip(kinds, shares, strict=True)
        if share
        for place in np.linspace(0, len(queries) - 1, share).round().astype(int)
    ]


def _similarities(queries: Tensor, rows: list[int], candidates: Tensor) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each row with the exact similarities of that query to all candidates."""
    from bimodal_cl.metrics.similarities import exact_similarities

    for start in range(0, len(rows), _AT_ONCE):
        some = rows[start : start + _AT_ONCE]
        yield from zip(some, exact_similarities(queries[some], candidates).cpu().numpy(), strict=True)


def _nearest(sims: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the rows of the nearest candidates, best first; a right one stands after those that tie with it."""
    return np.lexsort((right, -sims))[:_TOP]
