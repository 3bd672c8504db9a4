"""Keep the most recently used shards of a process open, local and remote ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

from bimodal_cl.data.shards.lru_cache import LRUCache
from bimodal_cl.data.shards.mixture import MixtureShard
from bimodal_cl.data.storage.concurrency import run_concurrently
from bimodal_cl.data.storage.locations import is_remote
from bimodal_cl.data.storage.shard_file import ShardFile
from bimodal_cl.data.storage.storage import Storage
from bimodal_cl.errors import ServerFailed

# An open copy cannot be evicted from the cache, so one that was not read for this long is closed.
IDLE_SECONDS = 60.0
# A shard that is read by range requests is opened again after this time, when the cache may have room for it.
RANGED_SECONDS = 60.0


class OpenShards:
    """Open shards on demand, and keep the most recently used ones open. Each process needs its own.

    Args:
        shards: the shards that may be opened.
        storage: opens them.
        max_open_files: number of shards that are open at a time, >= 1.
        version_of: returns the version of a remote shard when it was indexed, "" if unknown.

    Attributes:
        remote: of each shard, whether it is not a file of this machine.
    """

    def __init__(
        self,
        shards: tuple[MixtureShard, ...],
        storage: Storage,
        max_open_files: int,
        version_of: Callable[[int], str],
    ) -> None:
        self._shards, self._storage, self._version_of = shards, storage, version_of
        self._files: LRUCache[ShardFile] = LRUCache(max_open_files, close=lambda file: file.close())
        self.remote = [is_remote(shard.entry.name) for shard in shards]
        self._opened: dict[int, float] = {}
        self._used: dict[int, float] = {}
        self._next_tidying = 0.0

    def get(self, shard: int) -> ShardFile:
        """Return an open shard.

        Raises:
            UserError: it cannot be found or read, or is not what was indexed.
            ServerFailed: its server failed too often.
        """
        if not self.remote[shard]:
            return self._files.get(shard, self._open)
        self._used[shard] = time.monotonic()
        return self._files.get(shard, lambda shard: self._open(shard, self._version_of(shard)))

    def prefetch(self, shards: Iterable[int]) -> None:
        """Open remote shards concurrently, with as many connections as the storage allows.

        Raises:
            UserError, ServerFailed: as :meth:`get`.
        """
        self._tidy()
        now = time.monotonic()
        missing = {}
        for shard in shards:
            self._used[shard] = now
            if shard not in self._files:
                missing[shard] = self._version_of(shard)
        opened: dict[int, ShardFile] = {}

        def open_one(shard: int, version: str) -> None:
            try:
                opened[shard] = self._open(shard, version)
            except ServerFailed:
                raise
            except OSError:
                pass  # the disk failed: ``get`` reports this for the rows that need the shard

        try:
            run_concurrently([partial(open_one, *item) for item in missing.items()], self._storage.connections)
        finally:
            for shard in missing:
                if shard in opened:
                    self._files.get(shard, opened.__getitem__)

    def close(self) -> None:
        """Close all shards."""
        self._files.clear()
        self._opened.clear()

    def _open(self, shard: int, version: str = "") -> ShardFile:
        entry = self._shards[shard].entry
        file = self._storage.open(self._shards[shard].location, entry.bytes, entry.sha256, version)
        self._opened[shard] = time.monotonic()
        return file

    def _tidy(self) -> None:
        """Close remote shards that are idle, or that should be opened again."""
        now = time.monotonic()
        if now < self._next_tidying:
            return
        self._next_tidying = now + min(IDLE_SECONDS, RANGED_SECONDS) / 4
        for shard, file in self._files.items():
            if self.remote[shard]:
                expired = file.ranged and now - self._opened[shard] > RANGED_SECONDS
                if expired or now - self._used[shard] > IDLE_SECONDS:
                    self._files.drop(shard)
