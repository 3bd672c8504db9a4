"""Batches of image-text pairs for the loss tests: few ids, so that images, texts and whole pairs repeat in a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

NUM_IMAGES = 10
NUM_TEXTS = 25
DIM = 6


@dataclass(frozen=True)
class PairBatch:
    """Unit-norm float64 features ``[batch, dim]`` and the ids of their pairs."""

    image_features: np.ndarray
    text_features: np.ndarray
    image_ids: list[int]
    text_ids: list[int]

    def permuted(self, order: np.ndarray) -> PairBatch:
        """The same pairs in another order."""
        return PairBatch(
            self.image_features[order],
            self.text_features[order],
            [self.image_ids[i] for i in order],
            [self.text_ids[i] for i in order],
        )

    def swapped(self) -> PairBatch:
        """The same pairs with images and texts in each other's place."""
        return PairBatch(self.text_features, self.image_features, self.text_ids, self.image_ids)


def unit(features: np.ndarray) -> np.ndarray:
    """Divide every row by its length."""
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def draw_pairs(rng: np.random.Generator, batch_size: int) -> tuple[list[int], list[int]]:
    """Ids of a batch: mostly an image with one of its captions, now and then a caption that several images share."""
    image_ids = rng.integers(0, NUM_IMAGES, batch_size)
    captions_per_image = NUM_TEXTS // NUM_IMAGES
    text_ids = image_ids * captions_per_image + rng.integers(0, captions_per_image, batch_size)
    shared = rng.random(batch_size) < 0.25
    text_ids[shared] = rng.integers(NUM_IMAGES * captions_per_image, NUM_TEXTS, int(shared.sum()))
    return image_ids.tolist(), text_ids.tolist()


def draw_batches(kind: str, num_steps: int, seed: int = 0) -> Iterator[PairBatch]:
    """Batches of 2 to 15 pairs.

    Args:
        kind: ``"random"``: new directions at every step; ``"aligning"``: every image has a direction of its own, to
            which its pairs' features come closer step by step, until ``s_ii`` is nearly 1.
    """
    rng = np.random.default_rng(seed)
    concepts = unit(rng.normal(size=(NUM_IMAGES, DIM)))
    for step in range(num_steps):
        batch_size = int(rng.integers(2, 16))
        image_ids, text_ids = draw_pairs(rng, batch_size)
        noise = rng.normal(size=(2, batch_size, DIM))
        if kind == "aligning":
            noise = concepts[image_ids] + noise * 2.0 * (1.0 - step / num_steps) ** 2
        yield PairBatch(unit(noise[0]), unit(noise[1]), image_ids, text_ids)
