"""Open the image-text pairs that a command scores on: a folder of shards, a split of it, or CLIP_benchmark's layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bimodal_cl.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from bimodal_cl.data import Manifest

_NUM_SHARDS = "nshards.txt"  # CLIP_benchmark writes it beside its shards


def open_pairs(path: Path, split: str) -> Manifest:
    """Open shards of image-text pairs.

    The first of these that exists is taken: ``PATH`` with its ``manifest.json``; ``PATH/SPLIT`` with one, as
    ``bimodal-prep write`` makes of a source with splits; ``PATH/SPLIT`` or ``PATH`` in the layout of CLIP_benchmark
    (``0.tar ...`` with ``nshards.txt`` beside them, one caption per line), whose manifest is made in memory only.

    Args:
        path: an existing folder.
        split: name of the part.

    Raises:
        UserError: none of them exists, or manifest and shards do not fit.
    """
    from bimodal_cl.data import Manifest
    from bimodal_cl.data.shards.manifest import MANIFEST_NAME

    for folder in (path, path / split):
        if (folder / MANIFEST_NAME).exists():
            return Manifest.load(folder)
    for folder in (path / split, path):
        if (folder / _NUM_SHARDS).exists():
            return _index(folder)
    splits = sorted(each.parent.name for name in (MANIFEST_NAME, _NUM_SHARDS) for each in path.glob(f"*/{name}"))
    if splits:
        raise UserError(f"--split {split}: not in {path}{did_you_mean(split, splits)}")
    return Manifest.load(path)  # says what is missing, and which command makes it


def _index(folder: Path) -> Manifest:
    """Make the manifest of CLIP_benchmark's shards from the headers of the tars."""
    from bimodal_cl.data import Manifest, Shard, index_shard
    from bimodal_cl.data.labelled.layouts.wds import list_numbered_shards

    shards = []
    for path in list_numbered_shards(folder):
        index = index_shard(path, "lines")
        shards.append(Shard(path.name, len(index), int(index.caption_count.sum()), path.stat().st_size))
    if not sum(shard.num_texts for shard in shards):
        raise UserError(
            f"{folder}: its tars hold no captions; images with labels are scored by `bimodal-eval zero-shot`"
        )
    return Manifest(folder=folder, captions="lines", shards=tuple(shards))
