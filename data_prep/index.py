"""A manifest for shards that somebody else wrote, from their headers; no shard is rewritten."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from bimodal_cl.data.manifest import CAPTIONS_MODES, MANIFEST_NAME, CaptionsMode, Manifest, Shard
from bimodal_cl.data.natural_order import natural_order
from bimodal_cl.data.shard import index_shard
from bimodal_cl.errors import UserError
from bimodal_cl.progress import note, progress

from .input_paths import require_folder

Job = TypeVar("Job")
Result = TypeVar("Result")


def index_folder(
    folder: Path, captions: CaptionsMode | None = None, workers: int | None = None, overwrite: bool = False
) -> tuple[Manifest, bool]:
    """Write ``folder/manifest.json`` for its tars in natural order of their names.

    Args:
        folder: where the tars are.
        captions: "lines" or "whole". None: as the manifest that is there says, else "whole", since the shards of
            others hold one caption a text, sometimes with line breaks in it.
        workers: processes; None for one a core.
        overwrite: replace a manifest that says something else. Ids come from it, so tables of a run made with the
            old one would not fit.

    Returns:
        The manifest, and whether it is new (False: the one that was there says the same and stays).

    Raises:
        UserError: no such folder, no tar in it, a broken tar, or another manifest and not ``overwrite``.
    """
    paths = find_tars(folder)
    old = _old_manifest(folder)
    mode = captions or _old_captions(folder) or "whole"
    if mode == "whole":
        _hint_at_lines(paths[0])
    jobs = map_shards(partial(describe_shard, captions=mode), paths, workers)
    shards = tuple(progress(jobs, len(paths), "shards", "index"))
    if old and old.captions == mode and [_without_hash(shard) for shard in old.shards] == list(shards):
        return old, False
    if (folder / MANIFEST_NAME).exists() and not overwrite:
        raise UserError(f"{folder / MANIFEST_NAME} says something else; give --overwrite to replace it (ids change)")
    manifest = Manifest(folder=folder, captions=mode, shards=shards)
    try:
        manifest.save()
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None
    return manifest, True


def find_tars(folder: Path) -> list[Path]:
    """Return the tars of a folder in natural order.

    Raises:
        UserError: no such folder, or no tar in it.
    """
    require_folder(folder)
    paths = sorted(folder.glob("*.tar"), key=lambda path: natural_order(path.name))
    if not paths:
        raise UserError(f"no .tar in {folder}")
    return paths


def describe_shard(path: Path, captions: CaptionsMode) -> Shard:
    """Count a shard's rows and captions from its headers.

    Raises:
        UserError: it is not a whole tar (named, with the position).
    """
    rows = index_shard(path, captions)
    return Shard(path.name, len(rows), int(rows.caption_count.sum()), path.stat().st_size)


def map_shards(function: Callable[[Job], Result], jobs: list[Job], workers: int | None) -> Iterator[Result]:
    """Apply a function to every job, in order, in several processes where there are several jobs.

    Args:
        workers: processes; None for one a core.

    Raises:
        UserError: ``workers`` is below 1.
    """
    if workers is not None and workers < 1:
        raise UserError(f"--workers must be at least 1, got {workers}")
    count = min(workers or os.cpu_count() or 1, len(jobs))
    if count <= 1:
        yield from map(function, jobs)
        return
    with ProcessPoolExecutor(count) as pool:
        try:
            yield from pool.map(function, jobs, chunksize=max(1, min(8, len(jobs) // (4 * count))))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _old_manifest(folder: Path) -> Manifest | None:
    try:
        return Manifest.load(folder)
    except UserError:
        return None


def _old_captions(folder: Path) -> CaptionsMode | None:
    """How an earlier manifest splits texts; it is right about that even where its shards have changed since."""
    try:
        said = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))["captions"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return next((mode for mode in CAPTIONS_MODES if mode == said), None)


def _without_hash(shard: Shard) -> Shard:
    return Shard(shard.name, shard.num_images, shard.num_texts, shard.bytes)


def _hint_at_lines(path: Path) -> None:
    counts: Iterable[int] = index_shard(path, "lines").caption_count.tolist()
    several = sum(count > 1 for count in counts)
    if several:
        note(
            f"{path.name}: {several:,} texts have several lines; if each is a caption of its own, give --captions lines"
        )
