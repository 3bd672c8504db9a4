"""A data set whose shards are elsewhere: manifest and row tables here, tars on a server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from bimodal_cl.data import Manifest
from bimodal_cl.data.shards.index import index_shard
from bimodal_cl.data.shards.row_table import save_row_table


def write_remote_manifest(folder: Path, target: Path, base_url: str, tables: bool = True) -> Manifest:
    """Write the manifest of a folder of shards to ``target``, its shards named by URLs, perhaps with row tables."""
    content = json.loads((folder / "manifest.json").read_text())
    for shard in content["shards"]:
        shard["name"] = f"{base_url}/{shard['name']}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    (target / "manifest.json").write_text(json.dumps(content))
    manifest = Manifest.load(target)
    if tables:
        for shard in manifest.shards:
            local = folder / shard.name.rpartition("/")[2]
            save_row_table(target, shard, index_shard(local, manifest.captions))
    return manifest
