"""What is wrong with samples and shards: its kinds, their rules, their counts, and how many are too many.

Three rules. A sample that cannot be used is *replaced*: its place is filled by a pure function of the order; evaluation
leaves it out. An odd one is *used*, after a stated mending. What is wrong with a shard as a whole is found by
``bimodal-prep index``, which *refuses* a damaged tar unless it is told to keep what stands before the damage.
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
    "not_adjacent": "its text does not stand next to the image in the shard",
    "zero_bytes": "the image has no bytes",
    "undecodable": "the image's bytes are not one, or are incomplete",
    "too_many_pixels": "the header promises more pixels than max_pixels: a decompression bomb",
    "undefined_range": "integers or floats of more than 8 bits of which nobody knows which are white",
    "unreadable": "the disk or the server failed, or the shard is compressed",
}
USED_KINDS = {
    "wrong_extension": "the image is of another format than its name says; the bytes count",
    "cmyk": "converted to RGB",
    "palette": "converted to RGB",
    "alpha": "transparency is laid on white",
    "sixteen_bit": "16 bits (or floats) become 8; where none is above 255 they are taken as 8",
    "animated": "the first frame is used",
    "exif_rotated": "turned upright as its EXIF says",
    "extreme_aspect": "one side is more than 20 times the other; cropped like any other",
    "not_utf8": "UTF-16 with its mark is decoded; other bytes of the caption that are not UTF-8 become U+FFFD",
}
SHARD_KINDS = {
    "truncated": "the tar ends inside a member; with --damaged keep its whole samples before that are used",
    "garbage": "no tar header where one should be; with --damaged keep the samples before that are used",
    "duplicate_key": "samples that have the key of an earlier one of their shard; each is a sample of its own",
    "no_image": "texts without an image beside them; they are no samples",
    "dotted_key": "a key with dots in it; it ends at the last dot",
    "second_image": "images beside the first one of their sample, which is used",
    "second_text": "texts beside the one of their sample that is read: .txt before .caption before .text",
}
NOTED_KINDS = frozenset(
    (*USED_KINDS, "dotted_key", "second_image", "second_text")
)  # oddities, not faults: all of such a sample is used
MAX_EXAMPLES = 20


@dataclass(frozen=True)
class Fault:
    """One sample that cannot be used.

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
    """The faults and oddities among the samples so far. A sample counts once, whatever took its place.

    Args:
        samples: planned samples so far, good or not.
        by_kind: faults of each kind that occurred: samples that were replaced or left out.
        used: oddities of each kind of ``USED_KINDS`` among the planned samples; they were used.
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
        """Count one batch's samples, faults and oddities; the first faults are also logged as warnings."""
        self.samples += samples
        self.used.update(used)
        for fault in faults:
            self.by_kind[fault.kind] += 1
            if len(self.examples) < MAX_EXAMPLES:
                self.examples.append(fault)
                more = "; further ones are counted only" if len(self.examples) == MAX_EXAMPLES else ""
                logger.warning("%s%s", fault, more)

    def require_few(self, max_bad_fraction: float, folder: object, last: Fault | None) -> None:
        """Stop where more than a share of the samples so far are faulty, beyond what chance explains.

        The limit is ``f n + 4 sqrt(f n)``, four standard deviations above the share ``f = max_bad_fraction`` of the
        ``n`` samples so far (at least 100), so that one bad sample of the first twenty stops nothing, and the share
        counts alone in the long run. 0 tolerates none.

        Raises:
            UserError: more faults than that; names the counts and the last shard and key.
        """
        expected = max_bad_fraction * max(self.samples, 100)
        if self.total <= expected + 4 * math.sqrt(expected):
            return
        raise UserError(
            f"{folder}: {self.total} of the {self.samples} samples that this process took cannot be used ({self}), "
            f"more than max_bad_fraction={max_bad_fraction} allows; the last: {last}; "
            f"`bimodal-prep verify {folder}` names them all"
        )
