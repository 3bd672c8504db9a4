"""Shards in fsspec's memory, of a thousand bytes each, and what the cache holds of them."""

from __future__ import annotations

from pathlib import Path

from bimodal_cl.data.storage.shard_file import LocalFile
from bimodal_cl.data.storage.storage import Storage

SIZE = 1000


def location(number: int) -> str:
    return f"memory://shards/{number}.tar"


def names(folder: Path) -> list[str]:
    return sorted(path.name[33:] for path in folder.iterdir() if path.name != ".lock")


def touch(storage: Storage, number: int) -> None:
    file = storage.open(location(number), SIZE)
    assert isinstance(file, LocalFile)
    assert file.read(10, 5) == bytes([number]) * 5
    file.close()
