"""Write a manifest and row tables for existing shards, from their tar headers; no shard is rewritten."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bimodal_cl.cli.progress import note, progress
from bimodal_cl.data.shards.faults import REPLACED_KINDS, SHARD_KINDS
from bimodal_cl.data.shards.index import NAME_KINDS, index_shard
from bimodal_cl.data.shards.manifest import CAPTIONS_MODES, MANIFEST_NAME, CaptionsMode, DamagedRule, Manifest, Shard
from bimodal_cl.data.shards.row_table import ROWS_FOLDER, row_table_path
from bimodal_cl.data.storage.locations import is_pipe, is_remote, redact
from bimodal_cl.data.tar.samples import count_members
from bimodal_cl.errors import UserError
from bimodal_cl.files.image_files import describe_endings
from bimodal_cl.files.image_formats import TEXT_EXTENSIONS
from bimodal_cl.files.locks import locked
from bimodal_cl.files.text_files import read_text

from ..input_paths import note_other_shards
from ..ordered_work import map_shards, require_num_workers
from .layouts import Layout, recognise_layout
from .patterns import expand_locations
from .shard_description import Description, NamedShard, describe_shard, writing_to

if TYPE_CHECKING:
    from bimodal_cl.data.storage.storage import Storage

_WITHOUT_CAPTION = ("not_adjacent", "empty_caption")  # why existing texts are not used
PRELOADED = ("data_prep.indexing.shard_description", "bimodal_cl.data.storage.storage")  # for remote shards


@dataclass(frozen=True)
class IndexReport:
    """What an index found.

    Args:
        manifest: the manifest in its folder.
        is_new: whether the manifest was written; an equal one stays as it is.
        layout: layout of the first shard; None if unknown.
        num_reused: shards that an earlier index had read and that have not changed since.
        counts: findings in the headers, by kind.
        left_out: members of no sample with an image, by ending.
    """

    manifest: Manifest
    is_new: bool
    layout: Layout | None
    num_reused: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def lines(self) -> Iterator[str]:
        """Yield the lines of the printed summary."""
        manifest = self.manifest
        yield (
            f"{manifest.folder / MANIFEST_NAME}: {manifest.num_images:,} images, {manifest.num_texts:,} captions "
            f"({manifest.captions}) in {len(manifest.shards):,} shards{'' if self.is_new else '; unchanged'}"
        )
        if self.num_reused:
            yield f"  {self.num_reused:,} of the shards were read before and have not changed"
        if self.layout is not None:
            yield f"  layout of {self.layout.name}: {self.layout.meaning}"
        for rule, kinds in (("replaced", REPLACED_KINDS), ("kept", SHARD_KINDS), ("used", NAME_KINDS)):
            for kind, meaning in kinds.items():
                if self.counts[kind]:
                    yield f"  {self.counts[kind]:,} {kind} ({rule}): {meaning}"
        if self.left_out:
            yield f"  members of no sample: {describe_endings(self.left_out)}"


def index_shards(
    patterns: Sequence[str],
    to: Path | None = None,
    captions: CaptionsMode | None = None,
    num_workers: int | None = None,
    overwrite: bool = False,
    damaged: DamagedRule = "refuse",
    storage: Storage | None = None,
) -> IndexReport:
    """Write the manifest of shards, in natural order of their names, and their row tables.

    After an interruption, the next index continues: it only reads shards without a row table, or changed ones.

    Args:
        patterns: see :func:`expand_locations`.
        to: folder of the manifest; None for the folder of the shards, if all are in one local folder.
        captions: "lines" or "whole". None: as an existing manifest says, else as the layout says, else "whole", since
            most shards hold one caption per text, sometimes with line breaks.
        num_workers: number of processes; None for one per core.
        overwrite: replace a manifest that differs. Ids come from the manifest, so runs made with the old one do not
            fit the new one.
        damaged: "refuse" a shard that is truncated or holds garbage, or "keep" the intact samples before that.
        storage: reads remote shards; None if there are none.

    Raises:
        UserError: nothing is found, a shard is damaged and ``damaged`` is "refuse", or a manifest differs and
            ``overwrite`` is False.
        OSError: a disk or a server failed.
    """
    require_num_workers(num_workers)
    locations = expand_locations(patterns, storage is not None and storage.allow_pipe)
    for pattern in patterns:
        if not is_remote(pattern) and Path(pattern).is_dir():
            note_other_shards(Path(pattern))
    folder = _folder_of(locations, patterns) if to is None else to
    first = _first_shard(locations[0], storage)
    layout = None if first is None else recognise_layout(first, locations[0], _find_neighbours(locations[0], storage))
    old_mode = _old_captions(folder)
    mode = captions or old_mode or (layout.captions if layout else None) or "whole"
    if old_mode is not None and old_mode != mode and not overwrite:
        raise _says_something_else(folder)
    if mode == "whole" and first is not None:
        _hint_at_lines(first, locations[0])
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ROWS_FOLDER).mkdir(exist_ok=True)
    with locked(folder):
        _remove_temporary_files(folder)
        found = _describe_all(locations, folder, mode, num_workers, damaged, storage)
        _require_samples(found, layout, folder, storage)
        for description in found:
            shard, name = description.shard, redact(description.shard.name)
            if description.damage:
                note(f"{name}: {description.damage}; {shard.num_images:,} samples kept")
            elif not shard.num_images:
                note(f"{name}: holds no image")
        counts = sum((Counter(description.counts) for description in found), Counter())
        left_out = sum((Counter(description.left_out) for description in found), Counter())
        manifest, is_new = _save(folder, mode, found, {k: n for k, n in counts.items() if k in SHARD_KINDS}, overwrite)
        _remove_stale_tables(manifest)
    reused = sum(description.reused for description in found)
    return IndexReport(manifest, is_new, layout, reused, counts, left_out)


def _describe_all(
    locations: Sequence[str],
    folder: Path,
    mode: CaptionsMode,
    num_workers: int | None,
    damaged: DamagedRule,
    storage: Storage | None,
) -> list[Description]:
    jobs = [NamedShard(_name(location, folder), location) for location in locations]
    describe = partial(describe_shard, folder=folder, captions=mode, damaged=damaged, storage=storage)
    with closing(map_shards(describe, jobs, num_workers, PRELOADED, forked=storage is None)) as described:
        return list(progress(described, len(jobs), "shards", "index"))


def _require_samples(
    found: Sequence[Description], layout: Layout | None, folder: Path, storage: Storage | None
) -> None:
    """Raise ``UserError``, with what the shards hold, if no sample is usable.

    Shards without captions are accepted if their layout explains it.
    """
    has_image = any(description.shard.num_images for description in found)
    explained = layout is not None and not layout.has_captions
    if has_image and (explained or any(description.shard.num_texts for description in found)):
        return
    endings: Counter[str] = Counter()
    for name in (description.shard.name for description in found):
        if not is_pipe(name):
            endings += count_members(storage.local_copy(name) if storage and is_remote(name) else folder / name)
        if not (folder / MANIFEST_NAME).exists():
            row_table_path(folder, name).unlink(missing_ok=True)
    with suppress(OSError):  # it is not empty: it holds tables of an older index
        (folder / ROWS_FOLDER).rmdir()
    first = found[0].shard.name
    counts = sum((Counter(description.counts) for description in found), Counter())
    why = next((f": {REPLACED_KINDS[kind]}" for kind in _WITHOUT_CAPTION if has_image and counts[kind]), "")
    damage = next((description.damage for description in found if description.damage), "")
    place = f"{redact(first) if is_remote(first) else folder / first}{', ...' if len(found) > 1 else ''}"
    shards = "1 shard" if len(found) == 1 else f"{len(found):,} shards"
    holds = describe_endings(endings) or "nothing"
    texts = f"{', '.join(TEXT_EXTENSIONS[:-1])} or {TEXT_EXTENSIONS[-1]}"
    raise UserError(
        f"{place}: no {'captions' if has_image else 'images'} in {shards}; they hold "
        f"{holds}{f' ({damage})' if damage else ''}; a sample is an image (.jpg, .png, .webp, .tif, ...) and a {texts} "
        f"of the same name{why}"
    )


def _folder_of(locations: Sequence[str], patterns: Sequence[str]) -> Path:
    if len(patterns) == 1 and not is_remote(patterns[0]) and Path(patterns[0]).is_dir():
        return Path(patterns[0])
    folders = {"" if is_remote(location) else os.path.dirname(location) for location in locations}  # noqa: PTH120
    if len(folders) > 1 or is_remote(locations[0]):
        where = "not on this machine" if is_remote(locations[0]) else "in several folders"
        raise UserError(f"--to DIR is needed for manifest.json: the shards are {where} ({redact(locations[0])}, ...)")
    return Path(locations[0]).parent


def _name(location: str, folder: Path) -> str:
    """Return a shard's name in the manifest: the path relative to the folder if it is below, else the location."""
    if is_remote(location):
        return location
    try:
        location.encode()
    except UnicodeEncodeError:
        raise UserError(f"{location.encode(errors='backslashreplace').decode()}: its name is not UTF-8") from None
    path, base = Path(os.path.abspath(location)), Path(os.path.abspath(folder))  # noqa: PTH100  (`resolve` would follow links)
    if path.is_relative_to(base) and not is_remote(path.relative_to(base).as_posix()):
        return path.relative_to(base).as_posix()
    return path.as_posix()


def _first_shard(location: str, storage: Storage | None) -> Path | None:
    """Return the file of the first shard, for its layout; None for a command, which would have to run twice."""
    if storage is None:
        return Path(location)
    return None if is_pipe(location) else storage.local_copy(location)


def _find_neighbours(location: str, storage: Storage | None) -> Callable[[str], bool]:
    """Return a function that tells whether the folder of a shard has a file of some name."""

    def has_neighbour(name: str) -> bool:
        if storage is None or not is_remote(location):
            return Path(location).with_name(name).exists()
        with suppress(UserError):  # missing or forbidden; an error of the server is raised
            storage.ask(f"{location.partition('?')[0].rpartition('/')[0]}/{name}")
            return True
        return False

    return has_neighbour


def _save(
    folder: Path, captions: CaptionsMode, found: Sequence[Description], faults: dict[str, int], overwrite: bool
) -> tuple[Manifest, bool]:
    """Write the manifest if it differs from the existing one; return it, and whether it was written."""
    shards = tuple(description.shard for description in found)
    old = _old_manifest(folder)
    if old and old.captions == captions and [_without_hash(shard) for shard in old.shards] == list(shards):
        if old.faults == faults:
            return old, False
        shards = old.shards  # the same rows and ids, with their hashes
    elif (folder / MANIFEST_NAME).exists() and not overwrite:
        raise _says_something_else(folder)
    manifest = Manifest(folder, captions, shards, faults)
    with writing_to(folder):
        manifest.save()
    return manifest, True


def _says_something_else(folder: Path) -> UserError:
    return UserError(
        f"{folder / MANIFEST_NAME} does not match these shards; give --overwrite to replace it (ids change)"
    )


def _remove_stale_tables(manifest: Manifest) -> None:
    """Remove the row tables of shards that the manifest does not list."""
    listed = {row_table_path(manifest.folder, shard.name) for shard in manifest.shards}
    for path in (manifest.folder / ROWS_FOLDER).glob("*.rows"):
        if path not in listed:
            path.unlink(missing_ok=True)


def _remove_temporary_files(folder: Path) -> None:
    """Remove temporary files of killed runs; the folder is locked, so no other run is writing them."""
    for path in (*(folder / ROWS_FOLDER).glob(".*.rows.*.tmp"), *folder.glob(f".{MANIFEST_NAME}.*.tmp")):
        path.unlink(missing_ok=True)


def _old_manifest(folder: Path) -> Manifest | None:
    try:
        return Manifest.load(folder)
    except UserError:
        return None


def _old_captions(folder: Path) -> CaptionsMode | None:
    """Return how an existing manifest splits texts, even if its shards have changed since; None without one."""
    try:
        found = json.loads(read_text(folder / MANIFEST_NAME))["captions"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return next((mode for mode in CAPTIONS_MODES if mode == found), None)


def _without_hash(shard: Shard) -> Shard:
    return Shard(shard.name, shard.num_images, shard.num_texts, shard.bytes)


def _hint_at_lines(path: Path, location: str) -> None:
    counts: Iterable[int] = index_shard(path, "lines", "keep", redact(location)).caption_count.tolist()
    several = sum(count > 1 for count in counts)
    if several:
        name = redact(location).rpartition("/")[2]
        note(f"{name}: {several:,} texts have several lines; if each line is a caption, give --captions lines")
