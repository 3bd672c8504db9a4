"""Shards of image-caption pairs: the manifest, the order of samples, the stream of batches.

Names are loaded when they are first used, so that ``Manifest`` and the index of shards need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bimodal_cl.data.images.transforms import EvalTransform, TrainTransform
    from bimodal_cl.data.labelled import LabelledImages, open_labelled
    from bimodal_cl.data.order.plan import EpochPlan
    from bimodal_cl.data.pairs import Pair, image_ids_of_texts, read_pairs
    from bimodal_cl.data.pipeline.stream import Batch, Stream, open_stream
    from bimodal_cl.data.shards.index import ShardIndex, index_shard, split_captions
    from bimodal_cl.data.shards.manifest import Manifest, Shard

_MODULES = {
    "labelled": ("LabelledImages", "open_labelled"),
    "shards.manifest": ("Manifest", "Shard"),
    "pairs": ("Pair", "image_ids_of_texts", "read_pairs"),
    "order.plan": ("EpochPlan",),
    "shards.index": ("ShardIndex", "index_shard", "split_captions"),
    "pipeline.stream": ("Batch", "Stream", "open_stream"),
    "images.transforms": ("EvalTransform", "TrainTransform"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [  # noqa: RUF022  (by module, as above)
    "LabelledImages",
    "open_labelled",
    "Manifest",
    "Shard",
    "Pair",
    "image_ids_of_texts",
    "read_pairs",
    "EpochPlan",
    "ShardIndex",
    "index_shard",
    "split_captions",
    "Batch",
    "Stream",
    "open_stream",
    "EvalTransform",
    "TrainTransform",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
