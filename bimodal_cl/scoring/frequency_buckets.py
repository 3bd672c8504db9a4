"""Score the images of frequent, medium and rare classes apart, by how often training showed the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bimodal_cl.metrics.bootstrap import weighted_means

BUCKETS = ("head", "medium", "tail")
# Liu et al., CVPR 2019: more than 100 training images are many, fewer than 20 are few.
BOUNDS = (20, 100)


def bucket_of_count(count: int, bounds: tuple[int, int] = BOUNDS) -> str:
    """Return the bucket of a class.

    Source: Liu et al., CVPR 2019, section 4 (ImageNet-LT): many-shot, medium-shot and few-shot classes.

    Args:
        count: its training images.
        bounds: of ``medium``, both included; ``tail`` is below and ``head`` above.
    """
    return "tail" if count < bounds[0] else "medium" if count <= bounds[1] else "head"


@dataclass(frozen=True)
class FrequencyBuckets:
    """Images by the bucket of their class, and whether each is classified correctly.

    Attributes:
        members: bool ``[images]`` of each bucket that has images.
        hits: bool ``[images]``.
    """

    members: dict[str, np.ndarray]
    hits: np.ndarray

    @classmethod
    def of_images(cls, bucket_of_class: Sequence[str], targets: np.ndarray, hits: np.ndarray) -> FrequencyBuckets:
        """Sort images by the bucket of their class.

        Args:
            bucket_of_class: one of ``BUCKETS`` for every class.
            targets: int64 ``[images]``.
            hits: bool ``[images]``.
        """
        buckets = np.array(bucket_of_class)[targets]
        return cls({bucket: buckets == bucket for bucket in BUCKETS if (buckets == bucket).any()}, hits)

    def scores(self) -> dict[str, float]:
        """Return ``acc1_head``, ``acc1_medium``, ``acc1_tail``: each a share of the bucket's images."""
        return {f"acc1_{bucket}": int(self.hits[here].sum()) / int(here.sum()) for bucket, here in self.members.items()}

    def resample(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Return the same on resamples; one that draws no image of a bucket has the score of the data.

        Args:
            weights: int64 ``[resamples, images]``.
        """
        found = {}
        for (name, score), here in zip(self.scores().items(), self.members.values(), strict=True):
            drawn = weights[:, here]
            some = drawn.any(axis=1)
            samples = np.full(len(weights), score)
            hits, ones = self.hits[here, None].astype(np.float64), np.ones(int(here.sum()), dtype=np.int64)
            samples[some] = weighted_means(drawn[some], hits, ones)[:, 0]
            found[name] = samples
        return found
