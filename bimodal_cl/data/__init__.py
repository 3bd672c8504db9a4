"""Read image-caption pairs and labelled images: the manifest of shards, the stream of batches, images with classes.

Names are imported on first use, so that ``Manifest`` and ``index_shard`` do not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bimodal_cl.data.labelled.images import LabelledImages
    from bimodal_cl.data.labelled.open import open_labelled
    from bimodal_cl.data.pipeline.stream import Batch, Stream, open_stream
    from bimodal_cl.data.shards.index import index_shard
    from bimodal_cl.data.shards.manifest import Manifest, Shard

_MODULE_OF = {
    "Batch": "pipeline.stream",
    "LabelledImages": "labelled.images",
    "Manifest": "shards.manifest",
    "Shard": "shards.manifest",
    "Stream": "pipeline.stream",
    "index_shard": "shards.index",
    "open_labelled": "labelled.open",
    "open_stream": "pipeline.stream",
}

__all__ = [
    "Batch",
    "LabelledImages",
    "Manifest",
    "Shard",
    "Stream",
    "index_shard",
    "open_labelled",
    "open_stream",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
