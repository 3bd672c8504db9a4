"""The shards that a process has open, local and remote, and for how long."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial

from bimodal_cl.data.locations import is_remote
from bimodal_cl.data.manifest import Manifest
from bimodal_cl.data.recent import Recent
from bimodal_cl.data.storage import ShardFile, Storage, run_concurrently

# A copy that is open cannot leave the cache: one that was not read for so long is closed.
IDLE_SECONDS = 60.0
# What is read by ranges is opened anew so often: there may be room in the cache by then.
RANGED_SECONDS = 60.0
# Rows of a shard whose server just failed, all retries through, fail at once for so long.
FAILED_SECONDS = 30.0


class OpenShards:
    """Opens shards of a manifest and keeps those open that are used. One a process.

    Args:
        manifest: of the shards.
        storage: opens them.
        max_open_files: open at a time, >= 1.
    """

    def __init__(self, manifest: Manifest, storage: Storage, max_open_files: int) -> None:
        self._manifest, self._storage = manifest, storage
        self._files: Recent[ShardFile] = Recent(max_open_files, close=lambda file: file.close())
        self.remote = [is_remote(shard.name) for shard in manifest.shards]
        self._opened: dict[int, float] = {}
        self._used: dict[int, float] = {}
        self._failed: dict[int, tuple[float, OSError]] = {}
        self._next_tidying = 0.0

    def get(self, shard: int) -> ShardFile:
        """Return an open shard.

        Raises:
            UserError: it cannot be found or read, or is not what the manifest says.
            OSError: its server failed too often, now or lately.
        """
        if self.remote[shard]:
            self._used[shard] = time.monotonic()
            self._require_no_failure(shard)
        return self._files.get(shard, self._open)

    def prefetch(self, shards: Iterable[int]) -> None:
        """Open remote shards at once, as many as the storage allows. One whose server fails is left to ``get``.

        Raises:
            UserError: as :meth:`get`.
        """
        self._tidy()
        now = time.monotonic()
        missing = []
        for shard in shards:
            self._used[shard] = now
            if shard not in self._files and not self._failed_lately(shard):
                missing.append(shard)
        opened: dict[int, ShardFile] = {}

        def open_one(shard: int) -> None:
            try:
                opened[shard] = self._open(shard)
            except OSError as error:
                self.remember_failure(shard, error)

        try:
            run_concurrently([partial(open_one, shard) for shard in missing], self._storage.connections)
        finally:
            for shard in missing:
                if shard in opened:
                    self._files.get(shard, opened.__getitem__)

    def remember_failure(self, shard: int, error: OSError) -> None:
        """Let a remote shard fail at once for a while: its server had its chances."""
        self._failed[shard] = (time.monotonic() + FAILED_SECONDS, error)

    def close(self) -> None:
        """Close all."""
        self._files.clear()
        self._opened.clear()

    def _open(self, shard: int) -> ShardFile:
        entry = self._manifest.shards[shard]
        try:
            file = self._storage.open(self._manifest.location(shard), entry.bytes, entry.sha256)
        except OSError as error:
            self.remember_failure(shard, error)
            raise
        self._opened[shard] = time.monotonic()
        self._failed.pop(shard, None)
        return file

    def _failed_lately(self, shard: int) -> bool:
        failure = self._failed.get(shard)
        return failure is not None and time.monotonic() < failure[0]

    def _require_no_failure(self, shard: int) -> None:
        if self._failed and self._failed_lately(shard):
            raise OSError(*self._failed[shard][1].args)

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
