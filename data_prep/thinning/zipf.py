"""Choose which images of a data set stay so that the counts of its concepts follow Zipf's law."""

from __future__ import annotations

import numpy as np

from bimodal_cl.data.order.draws import Purpose, draw_bits
from bimodal_cl.data.shards.concepts import NO_CONCEPT, ImageConcepts


def kept_counts(counts: np.ndarray, exponent: float, min_images: int = 1, head: int | None = None) -> np.ndarray:
    """Return how many images of each concept stay, int64 ``[concepts]``.

    Of the concept of rank r, from 1, this is the nearest whole number to ``head * r ** -exponent``, at least
    ``min_images``, and never more than there are.

    Args:
        counts: images of each concept, int64 ``[concepts]``, descending.
        exponent: of Zipf's law, >= 0.
        min_images: least number of each concept where there are as many, >= 0.
        head: images of the most frequent concept; None: all that there are, so an exponent of 0 keeps every image.
    """
    ranks = np.arange(1, len(counts) + 1, dtype=np.float64)
    wanted = np.rint((counts[:1] if head is None else head) * ranks**-exponent).astype(np.int64)
    return np.minimum(counts, np.maximum(wanted, min_images))


def choose_images(concepts: ImageConcepts, kept: np.ndarray, seed: int) -> np.ndarray:
    """Return which images stay, bool ``[images]``; images without a concept do not.

    The images of a concept stay in the order of a hash of ``(seed, image_id)``, so those that a larger exponent keeps
    are among those that a smaller one keeps.

    Args:
        concepts: of the images.
        kept: number of images that stay, int64 ``[concepts]``, at most ``concepts.counts``.
        seed: >= 0.
    """
    of_image = concepts.of_image
    order = np.lexsort((draw_bits(Purpose.THINNING, seed, np.arange(len(of_image))), of_image))
    order = order[np.count_nonzero(of_image == NO_CONCEPT) :]  # -1 is first
    starts = np.cumsum(concepts.counts) - concepts.counts
    place = np.arange(len(order)) - starts[of_image[order]]
    stays = np.zeros(len(of_image), dtype=bool)
    stays[order[place < kept[of_image[order]]]] = True
    return stays
