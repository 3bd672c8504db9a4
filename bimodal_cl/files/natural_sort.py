"""Natural sort: ``2`` before ``10``.

The ids of images and captions follow from the order of shards, so no release of a library may change this order.
"""

from __future__ import annotations

import re


def natural_sort_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sort key that compares runs of digits as numbers; ties are broken by the name itself."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts], name
