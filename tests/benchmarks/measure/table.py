"""Format tables as text with aligned columns."""

from __future__ import annotations

from collections.abc import Sequence


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align the first column left and the others right. A row with fewer cells ends in a remark."""
    whole = [row for row in rows if len(row) == len(head)]
    widths = [max(len(row[column]) for row in [head, *whole]) for column in range(len(head))]
    widths[0] = max([widths[0], *(len(row[0]) for row in rows)])
    lines = []
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0])]
        if len(row) == len(head):
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        else:
            cells += row[1:]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def describe_bytes(size: float | None) -> str:
    """``37.1 MiB``, ``4.00 GiB``; ``-`` for None."""
    if size is None:
        return "-"
    mebibytes = size / 2**20
    return f"{mebibytes:.1f} MiB" if mebibytes < 1000 else f"{mebibytes / 1024:.2f} GiB"
