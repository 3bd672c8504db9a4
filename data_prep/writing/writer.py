"""Write the items of a source as shards with a manifest; name and count every item that is not written."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bimodal_cl.cli.progress import note, progress
from bimodal_cl.data.images.decode import BadImage
from bimodal_cl.data.shards.index import index_shard
from bimodal_cl.data.shards.manifest import CaptionsMode, Manifest, Shard
from bimodal_cl.data.shards.row_table import save_row_table
from bimodal_cl.errors import UserError
from bimodal_cl.files.image_files import describe_endings

from ..items import BadItem, Item, SourcePlan, Split
from ..ordered_work import map_in_order, require_num_workers
from ..staging import staged
from .captions import clean_captions
from .image_bytes import store_image
from .keys import KeyMaker
from .tar_file import TarWriter

PRELOADED = ("data_prep.writing.writer", "PIL.JpegImagePlugin", "PIL.PngImagePlugin")  # imported once for all processes


@dataclass(frozen=True)
class WriteOptions:
    """How items are written.

    Args:
        max_side: images whose longer side exceeds this many pixels are scaled down; None to keep all sizes.
        quality: JPEG quality of images that are encoded again, 1 to 100.
        shard_size: samples per shard (the last one may have fewer).
        strict: end the run with an error at the first unusable item.
        num_workers: processes that read and encode images; None for one per core. It does not change the bytes.

    Raises:
        UserError: a value is out of range.
    """

    max_side: int | None = None
    quality: int = 90
    shard_size: int = 1000
    strict: bool = False
    num_workers: int | None = None

    def __post_init__(self) -> None:
        if self.max_side is not None and self.max_side < 1:
            raise UserError(f"--max-side must be at least 1, got {self.max_side}")
        if not 1 <= self.quality <= 100:
            raise UserError(f"--quality must be 1 to 100, got {self.quality}")
        if self.shard_size < 1:
            raise UserError(f"--shard-size must be at least 1, got {self.shard_size}")
        require_num_workers(self.num_workers)


@dataclass(frozen=True)
class Prepared:
    """An encoded item, or why it cannot be used.

    Args:
        name: the item's name.
        members: content by extension; None for a ``bad`` item.
        num_texts: number of captions in the members.
        empty_captions: number of captions that were dropped.
        reencoded: why the image's bytes differ from the source's, or "".
        bad: what is wrong with the item, or None.
    """

    name: str = ""
    members: dict[str, bytes] | None = None
    num_texts: int = 0
    empty_captions: int = 0
    reencoded: str = ""
    bad: BadItem | None = None


@dataclass
class WriteReport:
    """Counts of what was written and of what was not.

    Args:
        split: name of the split.
        shards: the written shards.
        skipped: unusable items.
        empty_captions: captions that were dropped.
        reencoded: images that were encoded again, by reason.
        lacking, left_out, joined: see :class:`Split`.
    """

    split: str
    shards: list[Shard] = field(default_factory=list)
    skipped: int = 0
    empty_captions: int = 0
    reencoded: Counter[str] = field(default_factory=Counter)
    lacking: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    joined: Mapping[str, int] = field(default_factory=dict)

    @property
    def num_images(self) -> int:
        """Number of written images."""
        return sum(shard.num_images for shard in self.shards)

    @property
    def num_texts(self) -> int:
        """Number of written captions."""
        return sum(shard.num_texts for shard in self.shards)

    def lines(self) -> Iterator[str]:
        """Yield the lines of the printed summary."""
        size = sum(shard.bytes for shard in self.shards) / 2**20
        name = self.split or "written"
        shards = f"{len(self.shards):,} shard{'s' if len(self.shards) > 1 else ''}"
        yield f"{name}: {self.num_images:,} images, {self.num_texts:,} captions in {shards}, {size:,.1f} MiB"
        for reason, count in sorted(self.reencoded.items()):
            yield f"  {count:,} images encoded again: {reason}"
        for reason, count in sorted(self.joined.items()):
            yield f"  {count:,} {reason}"
        if self.empty_captions:
            yield f"  {self.empty_captions:,} empty captions dropped"
        if self.skipped:
            yield f"  {self.skipped:,} items skipped (named above)"
        for reason, count in sorted(self.lacking.items()):
            yield f"  {count:,} images are listed in the source but missing: {reason}"
        if self.left_out:
            yield f"  files left out: {describe_endings(self.left_out)}"


def write(
    plan: SourcePlan, target: Path, options: WriteOptions, job: Mapping[str, object], overwrite: bool = False
) -> list[WriteReport]:
    """Write all splits of a source below ``target``; after an error or interruption, nothing is left there.

    Args:
        plan: what to write.
        target: the folder for ``<split>/00000.tar ... manifest.json``.
        options: how to write it.
        job: the source and its flags as JSON values; an interrupted run of the same job may be repeated.
        overwrite: replace finished splits.

    Raises:
        UserError: see :func:`staged` and :func:`write_split`.
    """
    names = [split.name for split in plan.splits]
    with staged(target, job, names, overwrite) as content:
        reports = [write_split(split, content / split.name, options) for split in plan.splits]
        if plan.write_extras is not None:
            plan.write_extras(content)
    return reports


def write_split(split: Split, folder: Path, options: WriteOptions) -> WriteReport:
    """Write the shards of one split, then its manifest. The bytes do not depend on ``options.num_workers``.

    Raises:
        UserError: no item is usable, or with ``options.strict`` one is not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = WriteReport(split.name, lacking=split.lacking, left_out=split.left_out, joined=split.joined)
    prepare = partial(_prepare, max_side=options.max_side, quality=options.quality)
    with contextlib.closing(map_in_order(prepare, split.items, options.num_workers, preload=PRELOADED)) as prepared:
        items = progress(prepared, split.total, "items", f"write {split.name}".strip())
        samples = _samples(items, options.strict, report)
        report.shards.extend(write_shards(samples, folder, options.shard_size))
    if not report.shards:
        what = f"split '{split.name}'" if split.name else "the source"
        left_out = f"; files left out: {describe_endings(report.left_out)}" if report.left_out else ""
        raise UserError(f"{what} has no item that can be written ({report.skipped} skipped{left_out})")
    Manifest(folder=folder, captions="lines", shards=tuple(report.shards)).save()
    return report


def write_shards(
    samples: Iterable[tuple[str, Mapping[str, bytes], int]],
    folder: Path,
    shard_size: int,
    captions: CaptionsMode = "lines",
) -> Iterator[Shard]:
    """Write samples as the shards ``00000.tar``, ``00001.tar``, ... with their row tables; yield each when it is whole.

    Args:
        samples: key, content by extension in the order of the members, and number of captions.
        folder: an existing folder.
        shard_size: samples per shard, >= 1.
        captions: how the texts are split.
    """
    remaining = iter(samples)
    sample = next(remaining, None)
    for number in itertools.count():
        if sample is None:
            return
        name = f"{number:05d}.tar"
        num_images = num_texts = 0
        with TarWriter(folder / name) as tar:
            while sample is not None and num_images < shard_size:
                key, members, count = sample
                tar.write_sample(key, members)
                num_images, num_texts = num_images + 1, num_texts + count
                sample = next(remaining, None)
        shard = Shard(name, num_images, num_texts, tar.size, tar.sha256)
        save_row_table(folder, shard, index_shard(folder / name, captions))
        yield shard


def _samples(
    items: Iterable[Prepared], strict: bool, report: WriteReport
) -> Iterator[tuple[str, dict[str, bytes], int]]:
    """Yield key, members and number of captions of every usable item; note and count the others."""
    keys = KeyMaker()
    for item in items:
        report.empty_captions += item.empty_captions
        if item.bad is not None:
            if strict:
                raise UserError(f"{item.bad.where}: {item.bad.reason} (--strict)")
            report.skipped += 1
            note(f"skipped {item.bad.where}: {item.bad.reason}")
            continue
        assert item.members is not None
        if item.reencoded:
            report.reencoded[item.reencoded] += 1
        yield keys.make(item.name), dict(sorted(item.members.items())), item.num_texts


def _prepare(item: Item | BadItem, max_side: int | None, quality: int) -> Prepared:
    """Read and encode one item, in any process."""
    if isinstance(item, BadItem):
        return Prepared(bad=item)
    where = item.where or (str(item.image) if isinstance(item.image, Path) else item.name)
    captions, empty = clean_captions(item.captions)
    if not captions:
        return Prepared(empty_captions=empty, bad=BadItem(where, "no caption"))
    try:
        image = item.image if isinstance(item.image, bytes | Path) else item.image()
        stored = store_image(image, max_side, quality)
    except BadImage as error:
        return Prepared(empty_captions=empty, bad=BadItem(where, str(error)))
    members = {stored.extension: stored.data, ".txt": "\n".join(captions).encode()}
    if item.metadata is not None:
        members[".json"] = item.metadata
    return Prepared(item.name, members, len(captions), empty, stored.reencoded)
