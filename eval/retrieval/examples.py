"""Choose captions whose nearest images a report shows: successes, near misses and failures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bimodal_cl.scoring.retrieval import PairFeatures

_TOP = 5  # images shown for a caption


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
