"""The shards that a process has open, local and remote, and for how long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

from bimodal_cl.data.shards.manifest import Manifest
from bimodal_cl.data.shards.recent import Recent
from bimodal_cl.data.storage.concurrency import run_concurrently
from bimodal_cl.data.storage.locations import is_remote
from bimodal_cl.data.storage.shard_file import ShardFile
from bimodal_cl.data.storage.storage import Storage
from bimodal_cl.errors import ServerFailed

# A copy that is open cannot leave the cache: one that was not read for so long is closed.
IDLE_SECONDS = 60.0
# What is read by ranges is opened anew so often: there may be room in the cache by then.
RANGED_SECONDS = 60.0


class OpenShards:
    """Opens shards of a manifest and keeps those open that are used. One a process.

    Args:
        manifest: of the shards.
        storage: opens them.
        max_open_files: open at a time, >= 1.
        version_of: gives the version that a remote shard had when it was indexed, "" where nobody knows.
    """

    def __init__(
        self, manifest: Manifest, storage: Storage, max_open_files: int, version_of: Callable[[int], str]
    ) -> None:
        self._manifest, self._storage, self._version_of = manifest, storage, version_of
        self._files: Recent[ShardFile] = Recent(max_open_files, close=lambda file: file.close())
        self.remote = [is_remote(shard.name) for shard in manifest.shards]
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
        """Open remote shards at once, as many as the storage allows.

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
                pass  # a disk's failure: ``get`` reports it for the rows that it concerns

        try:
            run_concurrently([partial(open_one, *item) for item in missing.items()], self._storage.connections)
        finally:
            for shard in missing:
                if shard in opened:
                    self._files.get(shard, opened.__getitem__)

    def close(self) -> None:
        """Close all."""
        self._files.clear()
        self._opened.clear()

    def _open(self, shard: int, version: str = "") -> ShardFile:
        entry = self._manifest.shards[shard]
        file = self._storage.open(self._manifest.location(shard), entry.bytes, entry.sha256, version)
        self._opened[shard] = time.monotonic()
        return file

    def _tidy(self) -> None:
        now = time.monotonic()
        if now < self._next_tidying:
            return
        self._next_tidying = now + min(IDLE_SECONDS, RANGED_SECONDS) / 4
        for shard, file in self._files.items():
            if self.remote[shard]:
                expired = file.ranged and now - self._opened[shard] > RANGED_SECONDS
                if expired or now - self._used[shard] > IDLE_SECONDS:
                    self._files.drop(shard)
