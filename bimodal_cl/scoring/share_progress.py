"""Show how far the inputs of a tower are encoded, in units that mean something: images, captions, prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from bimodal_cl.cli.progress import progress
from bimodal_cl.distributed import rank, world_size

T = TypeVar("T")


def show_share(
    items: Iterable[T], total: int, unit: str, size: Callable[[T], int] | None = None, shared: bool = False
) -> Iterator[T]:
    """Yield items and show on stderr how many are encoded, with rate and remaining time.

    Args:
        items: single inputs, or batches.
        total: number of this rank's inputs.
        unit: what they are, in the plural.
        size: number of inputs of an item; None: one.
        shared: whether the ranks encode a share each; each shows its own.
    """
    part = f" (process {rank() + 1} of {world_size()})" if shared and world_size() > 1 else ""
    return progress(items, total, unit, f"encode {unit}{part}", size)
