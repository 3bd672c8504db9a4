"""Join the temperatures with the concept counts that a data set may bring along."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..captions import ConceptTemperature, load_concepts, temperatures_of_concepts
from .learned import LearnedTemperatures

if TYPE_CHECKING:
    from bimodal_cl.data.shards.mixture import Mixture


def visited_concepts(
    data: Mixture, images: LearnedTemperatures, texts: LearnedTemperatures
) -> list[ConceptTemperature]:
    """Return the concepts of which both an image and a text were visited; empty without a ``concepts.json``.

    Raises:
        UserError: the file or the data cannot be read.
    """
    concepts = load_concepts(data.manifests[0].folder) if len(data.manifests) == 1 else None
    if not concepts:
        return []
    rows = [each for each in temperatures_of_concepts(data, concepts, images.by_id(), texts.by_id()) if each.count > 0]
    return [each for each in rows if not np.isnan(each.text_tau) and not np.isnan(each.image_tau)]
