"""Kinds of faults of samples and shards, their counts, and the limit of faults.

A sample that cannot be used is *replaced* in training by another one, a pure function of the order, and left out in
evaluation. A sample with an oddity is *used*, after a repair that its kind describes. Faults of whole shards are found
by ``bimodal-prep index``, which *refuses* a damaged tar unless told to keep the samples before the damage.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bimodal_cl.errors import UserError

logger = logging.getLogger(__name__)

REPLACED_KINDS = {
    "no_caption": "the image has no .txt, .caption or .text",
    "empty_caption": "its text is blank",
    "not_adjacent": "its text is not next to the image in the shard",
    "zero_bytes": "the image has no bytes",
    "undecodable": "the bytes are not an image, or are incomplete",
    "too_many_pixels": "the header announces more pixels than max_pixels: a decompression bomb",
    "undefined_range": "integers or floats of more than 8 bits without a defined white",
    "unreadable": "the disk or the server failed, or the shard is compressed",
}
USED_KINDS = {
    "wrong_extension": "the format differs from the one of the name; the bytes decide",
    "cmyk": "converted to RGB",
    "palette": "converted to RGB",
    "alpha": "transparency is laid on white",
    "sixteen_bit": "16 bits (or floats) become 8; if none is above 255 they are taken as 8",
    "animated": "the first frame is used",
    "exif_rotated": "turned upright by its EXIF orientation",
    "extreme_aspect": "one side is more than 20 times the other; cropped like any other image",
    "not_utf8": "UTF-16 with a byte order mark is decoded; other bytes that are not UTF-8 become U+FFFD",
}
SHARD_KINDS = {
    "truncated": "the tar ends inside a member; with --damaged keep, the whole samples before it are used",
    "garbage": "no tar header where one should be; with --damaged keep, the samples before it are used",
    "duplicate_key": "samples with the key of an earlier one in their shard; each is a separate sample",
    "no_image": "texts without an image next to them; they are not samples",
    "dotted_key": "a key with dots in it; it ends at the last dot",
    "second_image": "additional images of a sample, of which the first is used",
    "second_text": "additional texts of a sample, of which one is used: .txt before .caption before .text",
}
# Oddities, which are not faults.
NOTED_KINDS = frozenset((*USED_KINDS, "dotted_key", "second_image", "second_text"))
MAX_EXAMPLES = 20


@dataclass(frozen=True)
class Fault:
    """A sample that cannot be used.

    Args:
        kind: one of ``REPLACED_KINDS``.
        shard: name of its shard.
        key: of the sample.
        image_id: of the sample.
        reason: what was found.
    """

    kind: str
    shard: str
    key: str
    image_id: int
    reason: str

    def __str__(self) -> str:
        return f"shard {self.shard}, key {self.key}: {self.kind} ({self.reason})"


@dataclass
class FaultCounts:
    """Counts of faults and oddities among the samples so far. Substitutes do not count.

    Args:
        samples: scheduled samples so far, with and without faults.
        by_kind: faults of each kind: samples that were replaced or left out.
        used: oddities of each kind of ``USED_KINDS`` among the scheduled samples; they were used.
        examples: the first faults, at most 20.
    """

    samples: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)
    used: Counter[str] = field(default_factory=Counter)
    examples: list[Fault] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Faults of all kinds."""
        return sum(self.by_kind.values())

    def __str__(self) -> str:
        return ", ".join(f"{count} {kind}" for kind, count in sorted(self.by_kind.items())) or "no faults"

    def add(self, samples: int, faults: Sequence[Fault], used: Iterable[str] = ()) -> None:
        """Count the samples, faults and oddities of a batch; the first faults are also logged as warnings."""
        self.samples += samples
        self.used.update(used)
        for fault in faults:
            self.by_kind[fault.kind] += 1
            if len(self.examples) < MAX_EXAMPLES:
                self.examples.append(fault)
                more = "; further ones are counted only" if len(self.examples) == MAX_EXAMPLES else ""
                logger.warning("%s%s", fault, more)

    def merge(self, later: FaultCounts) -> None:
        """Count what another process has counted of samples that come after these; its examples become warnings."""
        self.samples += later.samples
        self.by_kind.update(later.by_kind)
        self.used.update(later.used)
        for fault in later.examples[: MAX_EXAMPLES - len(self.examples)]:
            self.examples.append(fault)
            logger.warning("%s", fault)

    def require_few(
        self, max_bad_fraction: float, folder: object, last: Fault | None, num_images: int | None = None
    ) -> None:
        """Stop if significantly more than a fraction of the samples so far, or of all samples, are faulty.

        The limit is ``f n + 4 sqrt(f n)``: four standard deviations above the fraction ``f = max_bad_fraction`` of the
        ``n`` samples so far (at least 100). So one bad sample among the first twenty does not stop a run, and only the
        fraction matters in the long run. 0 tolerates no fault.

        Args:
            max_bad_fraction: in [0, 1].
            folder: of the data, for the message.
            last: the latest fault, for the message.
            num_images: samples of a pass over the whole data, of which these are a part: then ``n`` is their number, so
                that neither the order nor the number of processes decides. None: only what has been seen counts.

        Raises:
            UserError: there are more faults than that.
        """
        expected = max_bad_fraction * max(self.samples if num_images is None else num_images, 100)
        if self.total <= expected + 4 * math.sqrt(expected):
            return
        raise UserError(
            f"{folder}: {self.total} of the {self.samples} samples that this process read cannot be used ({self}), "
            f"more than max_bad_fraction={max_bad_fraction} allows; the last: {last}; "
            f"`bimodal-prep verify {folder}` names them all"
        )
