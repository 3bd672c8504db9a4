"""Measure the peak memory of a piece of work, above what the process held before.

On the CPU, the kernel's own count: the high-water mark of resident memory (``VmHWM`` of ``/proc/self/status``), reset
by writing 5 to ``/proc/self/clear_refs`` (proc(5), Linux), minus the resident memory (``VmRSS``) before the work. It
sees every library's allocations and misses no short peak, as a sampling thread would. Two things would spoil it:

- Freed memory that the allocator keeps is resident already, and work that takes it again costs nothing. So
  :func:`return_freed_memory` makes glibc give every block of 64 KiB or more back at once. That slows allocation down,
  so time is never measured in the same process.
- What a library sets up at its first call (thread pools, packed buffers, compiled kernels) is not the work's. So the
  work is done once before it is measured, and each measurement has a process of its own.

On CUDA, the same difference of the caching allocator's counts (``torch.cuda.max_memory_allocated``).
"""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from types import TracebackType

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def return_freed_memory() -> None:
    """Make glibc return freed blocks of 64 KiB or more to the system at once, for the rest of the process."""
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # another C library
        return
    libc.mallopt(_M_MMAP_THRESHOLD, 64 * 1024)
    libc.mallopt(_M_TRIM_THRESHOLD, 0)
    libc.malloc_trim(0)


class PeakMemory:
    """Measure the memory of a ``with`` block.

    Args:
        device: ``"cpu"`` or ``"cuda"``.

    Attributes:
        peak: the most bytes held at once inside the block, above those held at its beginning; None where it cannot be
            measured (a CPU without Linux's ``/proc``).
        held: bytes still held at its end, above those at its beginning; None likewise.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self.peak: int | None = None
        self.held: int | None = None

    def __enter__(self) -> PeakMemory:
        gc.collect()
        self._reset()
        self._before = self._read("VmRSS")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        peak, held = self._read("VmHWM"), self._read("VmRSS")
        if self._before is not None and peak is not None and held is not None:
            self.peak, self.held = max(0, peak - self._before), max(0, held - self._before)

    def _reset(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self._device = "unknown"

    def _read(self, what: str) -> int | None:
        if self._device == "cuda":
            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated() if what == "VmHWM" else torch.cuda.memory_allocated()
        if self._device == "unknown":
            return None
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1]) * 1024
        return None
