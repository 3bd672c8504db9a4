"""Measure the wall-clock time of several pieces of work in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

FEWEST_ROUNDS = 3


def time_in_turn(
    work: Mapping[str, Callable[[], object]],
    rounds: int,
    seconds: float = float("inf"),
    synchronize: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Time each piece of work once per round, A B C A B C, so that disturbances hit all of them.

    The caller has done each of them once before.

    Args:
        work: the pieces by name.
        rounds: how often each is timed.
        seconds: no new round begins later than this, once there have been three.
        synchronize: waits for the device.

    Returns:
        The seconds of each round, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    begin = time.perf_counter()
    for done in range(rounds):
        if done >= FEWEST_ROUNDS and time.perf_counter() - begin > seconds:
            break
        for name, piece in work.items():
            synchronize()
            start = time.perf_counter()
            piece()
            synchronize()
            times[name].append(time.perf_counter() - start)
    return times


def synchronizer(device: str) -> Callable[[], object]:
    """Return the function that waits for ``"cuda"``; for ``"cpu"`` it does nothing."""
    return torch.cuda.synchronize if device == "cuda" else lambda: None


def describe_time(seconds: float) -> str:
    """Format seconds with three digits: ``812 ms``, ``8.12 s``."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"


def describe_range(times: list[float]) -> tuple[str, str]:
    """Return the median, and ``smallest .. largest``."""
    return describe_time(statistics.median(times)), f"{describe_time(min(times))} .. {describe_time(max(times))}"
