"""Count the samples that a run has seen, by data set and by fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SeenData:
    """Counts of the samples of a run so far.

    Args:
        replaced: faulty samples by kind; other samples took their places.
        used: samples with oddities, by kind; they were used.
        samples_by_set: samples by data set.
    """

    replaced: dict[str, int] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    samples_by_set: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: SeenData) -> SeenData:
        pairs = ((self.replaced, other.replaced), (self.used, other.used), (self.samples_by_set, other.samples_by_set))
        return SeenData(*(dict(Counter(one) + Counter(two)) for one, two in pairs))

    def lines(self, shards: dict[str, int]) -> Iterator[str]:
        """Yield a line for each kind of fault or oddity that was met.

        Args:
            shards: faults of the shards by kind, as the manifest counts them.
        """
        for what, counts in (("replaced", self.replaced), ("used", self.used), ("found by index", shards)):
            for kind, count in sorted(counts.items()):
                yield f"data: {count:,} {kind} ({what})"
