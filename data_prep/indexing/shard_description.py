"""Describe one shard for the manifest, from its tar headers or from the row table of an earlier index."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bimodal_cl.data.shards.index import index_shard
from bimodal_cl.data.shards.manifest import CaptionsMode, DamagedRule, Shard
from bimodal_cl.data.shards.row_table import RULES, load_table_header, save_row_table
from bimodal_cl.data.storage.locations import is_remote, redact
from bimodal_cl.errors import UserError

if TYPE_CHECKING:  # importing fsspec takes a tenth of the time that a thousand local samples take
    from bimodal_cl.data.storage.sources.source import SourceInfo
    from bimodal_cl.data.storage.storage import Storage

_DAMAGE = {"truncated", "garbage"}


@dataclass(frozen=True)
class NamedShard:
    """A shard to describe.

    Args:
        name: its name in the manifest.
        location: its path or URL.
    """

    name: str
    location: str


@dataclass(frozen=True)
class Description:
    """One described shard.

    Args:
        shard: its entry in the manifest.
        counts: findings in the headers, by kind.
        left_out: members of no sample, by ending.
        damage: why a part of it is not used, for messages; "" if it is intact.
        reused: whether an earlier index had read it.
    """

    shard: Shard
    counts: Mapping[str, int]
    left_out: Mapping[str, int]
    damage: str = ""
    reused: bool = False


def describe_shard(
    named: NamedShard, folder: Path, captions: CaptionsMode, damaged: DamagedRule, storage: Storage | None
) -> Description:
    """Count a shard's rows and captions from its headers, and save their positions in a row table.

    A remote shard is downloaded into the storage's cache.

    Args:
        named: the shard.
        folder: folder of the manifest, for the row table.
        captions: how texts are split.
        damaged: "refuse" or "keep" a shard that is truncated or holds garbage.
        storage: reads remote shards; None if there are none.

    Raises:
        UserError: the shard cannot be read, is damaged and ``damaged`` is "refuse", or changes while it is read; or the
            folder cannot be written.
        OSError: the disk or the server failed.
    """
    info = storage.ask(named.location) if storage is not None and is_remote(named.location) else None
    found = _reuse(named.name, folder, captions, damaged, info)
    if found is not None:
        return found
    path, version = Path(named.location), ""
    if storage is not None and info is not None:
        path, version = storage.local_version(named.location, info)
    before = _stat(path, named)
    index = index_shard(path, captions, "keep", redact(named.location))
    if index.damage and damaged == "refuse":
        raise UserError(
            f"shard {redact(named.location)}: {index.damage}; --damaged keep uses the intact samples before it"
        )
    shard = Shard(named.name, len(index), int(index.caption_count.sum()), before.st_size)
    with writing_to(folder):
        table = save_row_table(folder, shard, index, version)
        # The table stores the shard's time at this moment, so the check comes after it.
        if not is_remote(named.location) and _identity(_stat(path, named)) != _identity(before):
            if table is not None:
                table.unlink()
            raise UserError(f"shard {named.location}: changed while it was read; index it again when it is complete")
    return Description(shard, index.counts, index.left_out, index.damage)


def _stat(path: Path, named: NamedShard) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise UserError(f"shard {redact(named.location)}: cannot be opened: {error.strerror}") from None


def _identity(stat: os.stat_result) -> tuple[int, int, int]:
    """Return values of which one changes when the content of a file is replaced."""
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn errors of missing permission into ``UserError``."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise UserError(f"cannot write to {folder}: {error.strerror}; --to DIR puts the manifest elsewhere") from None


def _reuse(
    name: str, folder: Path, captions: CaptionsMode, damaged: DamagedRule, info: SourceInfo | None
) -> Description | None:
    """Return the description in the row table of an earlier index; None if there is none or the shard has changed.

    ``info`` is what the server says of a remote shard now; None for a local shard.
    """
    header = load_table_header(folder, name)
    if header is None or header.captions != captions or header.rules != RULES:
        return None
    if info is not None:
        if not info.version or (header.shard.bytes, header.version) != (info.size, info.version):
            return None
    elif header.shard.bytes != (folder / name).stat().st_size:
        return None
    broken = _DAMAGE & set(header.counts)
    if broken and damaged == "refuse":
        return None  # reading it again tells where the damage is
    damage = "only the samples before the damage are used" if broken else ""
    return Description(header.shard, header.counts, header.left_out, damage, True)
