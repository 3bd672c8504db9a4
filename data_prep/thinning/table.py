"""Write tables of concepts as CSV, and print the counts of the most frequent ones."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np


def as_csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as CSV."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return stream.getvalue()


def count_lines(names: Sequence[str], columns: Mapping[str, np.ndarray], most: int = 10) -> Iterator[str]:
    """Yield the lines of a table of counts by concept, in the order of ranks; those after ``most`` are one line.

    Args:
        names: of the concepts.
        columns: counts by head, ``[concepts]`` each.
        most: number of concepts with a line of their own.
    """
    yield f"{'rank':>5} {'concept':24}" + "".join(f"{head:>10}" for head in columns)
    for number, name in enumerate(names[:most]):
        yield f"{number + 1:>5} {name:24}" + "".join(f"{int(each[number]):>10,}" for each in columns.values())
    if len(names) > most:
        more = f"{len(names) - most:,} more"
        yield f"{'':6}{more:24}" + "".join(f"{int(each[most:].sum()):>10,}" for each in columns.values())
