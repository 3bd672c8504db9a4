"""Samples that cannot be used: named by shard and key, counted by kind, and how many of them are too many."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from bimodal_cl.errors import UserError

logger = logging.getLogger(__name__)

FAULT_KINDS = ("unreadable", "undecodable", "too_many_pixels", "no_caption")
MAX_EXAMPLES = 20


@dataclass(frozen=True)
class Fault:
    """One sample that cannot be used.

    Args:
        kind: one of ``FAULT_KINDS``.
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
    """The faults among the samples so far. A sample counts once, whatever took its place.

    Args:
        samples: planned samples so far, good or not.
        by_kind: faults of each kind that occurred.
        examples: the first of them, at most 20.
    """

    samples: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)
    examples: list[Fault] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Faults of all kinds."""
        return sum(self.by_kind.values())

    def __str__(self) -> str:
        return ", ".join(f"{count} {kind}" for kind, count in sorted(self.by_kind.items())) or "no faults"

    def add(self, samples: int, faults: Sequence[Fault]) -> None:
        """Count one batch's samples and faults; the first ones are also logged as warnings."""
        self.samples += samples
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
            f"{folder}: {self.total} of the first {self.samples} samples cannot be used ({self}), more than "
            f"max_bad_fraction={max_bad_fraction} allows; the last: {last}; "
            f"`bimodal-prep verify {folder}` names them all"
        )
