"""The order in which people count: ``2`` before ``10``."""

from __future__ import annotations

import re


def natural_order(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that takes runs of digits as numbers; ties are broken by the name itself."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts], name
