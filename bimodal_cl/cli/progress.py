"""Show the progress of long work on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

LINE_INTERVAL = 10.0  # seconds between two plain lines


def progress(
    iterable: Iterable[T], total: int | None, unit: str, description: str, size: Callable[[T], int] | None = None
) -> Iterator[T]:
    """Yield the items of an iterable and show how many are done, with rate and remaining time.

    Args:
        iterable: the items.
        total: number of items; None where it is unknown.
        unit: plural name of an item, such as "images".
        description: name of the work, at the front of the bar or line.
        size: how many units an item is, such as the images of a batch; None: one. ``total`` counts units.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm  # its import takes a tenth of a second, which `--help` does not need

        with tqdm(total=total, unit=f" {unit}", desc=description, dynamic_ncols=True, smoothing=0.1) as bar:
            for item in iterable:
                yield item
                bar.update(1 if size is None else size(item))
    else:
        yield from _plain_lines(iterable, total, unit, description, size)


def note(message: str) -> None:
    """Print one line on stderr, above a bar if one is shown."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(message, file=sys.stderr)
    else:
        print_line(message)


def print_line(message: str) -> None:
    """Print one line on stderr in a single write, so that the lines of several processes do not run together."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def format_duration(seconds: float) -> str:
    """Return a duration in words: ``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _plain_lines(
    iterable: Iterable[T], total: int | None, unit: str, description: str, size: Callable[[T], int] | None
) -> Iterator[T]:
    start = shown = time.monotonic()
    count = 0
    for item in iterable:
        yield item
        count += 1 if size is None else size(item)
        now = time.monotonic()
        if now - shown >= LINE_INTERVAL:
            shown = now
            rate = count / (now - start)
            done = f"{count:,}" if total is None else f"{count:,} of {total:,}"
            left = "" if total is None or not count else f", {format_duration((total - count) / rate)} left"
            note(f"{description}: {done} {unit}, {_rate(rate)}{left}")
    elapsed = time.monotonic() - start
    note(f"{description}: {count:,} {unit} in {format_duration(elapsed)} ({_rate(count / max(elapsed, 1e-9))})")


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}/s" if per_second >= 10 else f"{per_second:.2g}/s"
