"""Check every byte of a data set, report faults and oddities by shard and key, and write clean copies on request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bimodal_cl.cli.progress import note, progress
from bimodal_cl.data.images.decode import MAX_PIXELS
from bimodal_cl.data.shards.faults import NOTED_KINDS, REPLACED_KINDS, SHARD_KINDS, USED_KINDS
from bimodal_cl.data.shards.manifest import CaptionsMode, Manifest
from bimodal_cl.data.storage.locations import is_remote
from bimodal_cl.data.storage.storage import Storage
from bimodal_cl.errors import UserError
from bimodal_cl.files.image_files import describe_endings

from ..ordered_work import map_shards, require_num_workers
from ..staging import staged
from .expected_shards import Expected, expect_shards
from .shard_check import MANIFEST_KIND, Finding, ShardCheck, ShardJob, check_shard

PRELOADED = ("data_prep.verification.shard_check", "PIL.JpegImagePlugin", "PIL.PngImagePlugin")
RULE_OF = {
    **dict.fromkeys([MANIFEST_KIND, *SHARD_KINDS, *REPLACED_KINDS], "fault"),
    **dict.fromkeys(NOTED_KINDS, "used"),
}
MEANING_OF = {MANIFEST_KIND: "the shards are not what the manifest says", **SHARD_KINDS, **REPLACED_KINDS, **USED_KINDS}


@dataclass
class VerifyReport:
    """Sums over a data set.

    Args:
        num_images: rows of all shards, good or not.
        counts: findings by kind, faults and oddities.
        num_copied: images in the clean copy.
        in_no_sample: members of no sample with an image, by ending.
        num_left_out: members that the clean copy lacks because their names are too long.
    """

    num_images: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    num_copied: int = 0
    in_no_sample: Counter[str] = field(default_factory=Counter)
    num_left_out: int = 0

    @property
    def num_faults(self) -> int:
        """Number of faults."""
        return sum(count for kind, count in self.counts.items() if kind not in NOTED_KINDS)

    @property
    def num_notes(self) -> int:
        """Number of oddities that training accepts."""
        return sum(self.counts.values()) - self.num_faults

    def lines(self) -> Iterator[str]:
        """Yield the lines of the printed summary, one for each kind that was found."""
        for kind, meaning in MEANING_OF.items():
            if self.counts[kind]:
                yield f"  {self.counts[kind]:,} {kind} ({RULE_OF[kind]}): {meaning}"
        if self.in_no_sample:
            yield f"  members of no sample: {describe_endings(self.in_no_sample)}"


def verify_folder(
    folder: Path,
    say: Callable[[Finding], None],
    num_workers: int | None = None,
    captions: CaptionsMode | None = None,
    repair_to: Path | None = None,
    storage: Storage | None = None,
    max_pixels: int | None = None,
) -> VerifyReport:
    """Check manifest, hashes, tar structure, every image's pixels and every caption.

    Args:
        folder: the folder of the shards, with or without a manifest, or of a manifest of remote shards.
        say: called with every finding, in order of shards, as soon as it is known.
        num_workers: number of processes; None for one per core.
        captions: how texts are split if no manifest says it; None for "whole".
        repair_to: folder for clean copies, with a manifest and ids of their own: unusable samples are dropped, and what
            can be repaired is repaired. None for no copies.
        storage: reads remote shards; None for the default.
        max_pixels: images with more pixels are faults; None for ``MAX_PIXELS``.

    Raises:
        UserError: the folder is missing or empty, no sample can be copied, or a number is out of range.
    """
    require_num_workers(num_workers)
    if max_pixels is not None and max_pixels < 1:
        raise UserError(f"--max-pixels must be at least 1, got {max_pixels}")
    expected = expect_shards(folder, captions or "whole")
    report = VerifyReport()
    for finding in expected.findings:
        report.counts[finding.kind] += 1
        say(finding)
    check = partial(
        check_shard,
        folder=folder,
        captions=expected.captions,
        storage=storage or Storage(),
        max_pixels=max_pixels or MAX_PIXELS,
    )
    if repair_to is None:
        for _ in _collect(check, expected, num_workers, "verify", report, say):
            pass
        return report
    if repair_to.resolve() == folder.resolve():
        raise UserError(f"--to must differ from {folder}, which is not changed")
    with staged(repair_to, {"repair": str(folder.resolve())}, [""], overwrite=False) as content:
        check = partial(check, clean_folder=content)
        checks = _collect(check, expected, num_workers, "verify and repair", report, say)
        clean = tuple(done.clean for done in checks if done.clean is not None)
        if not clean:
            raise UserError(f"no sample of {folder} is intact: nothing to copy")
        Manifest(folder=content, captions="lines", shards=clean).save()
        report.num_copied = sum(shard.num_images for shard in clean)
    return report


def _collect(
    check: Callable[[ShardJob], ShardCheck],
    expected: Expected,
    num_workers: int | None,
    what: str,
    report: VerifyReport,
    say: Callable[[Finding], None],
) -> Iterator[ShardCheck]:
    jobs = [
        ShardJob(name, expected.shards.get(name), copy)
        for name, copy in zip(expected.names, _copy_names(expected.names), strict=True)
    ]
    with closing(map_shards(check, jobs, num_workers, PRELOADED)) as checks:
        for done in progress(checks, len(jobs), "shards", what):
            report.num_images += done.num_images
            report.in_no_sample += done.in_no_sample
            for finding in done.findings:
                report.counts[finding.kind] += 1
                say(finding)
            for line in done.left_out:
                note(line)
            report.num_left_out += len(done.left_out)
            yield done


def _copy_names(names: list[str]) -> list[str]:
    """Return names for the copies: the shards' own if all are files of one folder, else numbers."""
    if any(is_remote(name) or "/" in name for name in names):
        return [f"{number:05d}.tar" for number in range(len(names))]
    return names
