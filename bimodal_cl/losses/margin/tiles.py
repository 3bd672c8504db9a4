"""Cut the B x B similarities into tiles."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

TileSize = int | Literal["auto"] | None

CPU_TILE = 1024  # 4 MB in float32: see choose_tiling
CUDA_TILE = 8192
SMALLEST_TILE = 64
KEPT_BYTES = 2**26  # 64 MiB: similarities of 4096 pairs in float32
SHARE_OF_FREE_MEMORY = 1 / 16
_MEMINFO = Path("/proc/meminfo")  # Linux
BUFFERS = 3  # tiles alive at once: the similarities and both directions' weights


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How the similarities are cut.

    Attributes:
        size: rows and columns of a tile.
        kept: the forward pass leaves its tiles to the backward pass, which otherwise computes them again.
    """

    size: int
    kept: bool

    def __call__(self, whole: slice) -> Iterator[slice]:
        """Cut a range into pieces of ``size``, the last one shorter."""
        for start in range(whole.start, whole.stop, self.size):
            yield slice(start, min(start + self.size, whole.stop))


class Buffers:
    """Memory for tiles, allocated for the first tile, which is the largest, and used again for the others.

    Args:
        like: a tensor of the device and type.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._flat: dict[str, Tensor] = {}

    def take(self, use: str, rows: slice, columns: slice, dtype: torch.dtype | None = None) -> Tensor:
        """Return a contiguous matrix for a tile, in the same memory at every call for one use."""
        shape = rows.stop - rows.start, columns.stop - columns.start
        if use not in self._flat:
            self._flat[use] = self._like.new_empty(math.prod(shape), dtype=dtype)
        return self._flat[use][: math.prod(shape)].view(shape)


def choose_tiling(tile_size: TileSize, num_rows: int, num_columns: int, features: Tensor) -> Tiling:
    """Decide how the similarities of ``num_rows`` anchors and ``num_columns`` candidates are cut.

    A number is taken as it is and nothing is kept; None makes one tile of all, which is kept. ``"auto"``:

    - The side is 1024 on the CPU (a tile of float32 takes 4 MB: of the sizes that stay in a last-level cache, the one
      with the fastest products) and 8192 elsewhere (large products; on a GPU the time to start kernels counts).
    - It is halved, down to 64, while the three tiles alive at once would take more than 1/16 of the free memory.
    - The tiles are kept where all of them take at most 64 MiB (4096 pairs in float32) and 1/16 of the free memory:
      that saves one of four products.

    Args:
        tile_size: a number of rows and columns, None or ``"auto"``.
        num_rows: this process's anchors.
        num_columns: the global batch.
        features: their device and precision count.
    """
    everything = max(num_rows, num_columns, 1)
    if tile_size is None:
        return Tiling(everything, kept=True)
    if tile_size != "auto":
        return Tiling(tile_size, kept=False)
    free = free_memory(features.device)
    budget = free * SHARE_OF_FREE_MEMORY
    size = CPU_TILE if features.device.type == "cpu" else CUDA_TILE
    while size > SMALLEST_TILE and BUFFERS * size**2 * features.element_size() > budget:
        size //= 2
    kept = num_rows * num_columns * features.element_size() <= min(KEPT_BYTES, budget)
    return Tiling(min(size, everything), kept)


def free_memory(device: torch.device) -> float:
    """Return the bytes that are free on a device; infinite where the system does not say."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type == "cpu" and _MEMINFO.exists():
        available = next(line for line in _MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:"))
        return int(available.split()[1]) * 1024
    return math.inf
