"""Measure where the time of a stream goes: each stage in the workers, and waiting for them in the main process."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bimodal_cl.data.pipeline.stages import TIMED
from bimodal_cl.data.pipeline.stream import Stream
from bimodal_cl.errors import UserError


@dataclass(frozen=True)
class Profile:
    """The time that some batches of a stream took.

    Args:
        samples: in those batches.
        seconds: from the first to the last batch.
        by_stage: seconds by the names of ``stages.TIMED``, summed over workers, and ``"wait"``.
        num_workers: processes that read and decode; 0: the main process does.
    """

    samples: int
    seconds: float
    by_stage: dict[str, float]
    num_workers: int

    def lines(self) -> list[str]:
        """Return the lines of a table to print."""
        work = sum(self.by_stage[name] for name in TIMED)
        workers = f"{self.num_workers} workers" if self.num_workers else "no workers"
        rate = self.samples / self.seconds
        lines = [
            f"{self.samples:,} samples in {self.seconds:.1f} s with {workers}: {rate:,.0f} a second",
            f"{'stage':8}  {'ms a sample':>11}  share of the work",
        ]
        for name in TIMED:
            seconds = self.by_stage[name]
            lines.append(f"{name:8}  {1e3 * seconds / self.samples:11.3f}  {seconds / work:17.0%}")
        wait = self.by_stage["wait"]
        lines.append(f"{'wait':8}  {1e3 * wait / self.samples:11.3f}  in the process that takes the batches")
        return lines


def profile_stream(stream: Stream, num_batches: int) -> Profile:
    """Take batches from a stream as fast as they come, and measure.

    One batch per worker, and another one, come before the measurement, while workers start and files are opened.

    Args:
        stream: to measure.
        num_batches: to measure, fewer if the stream has fewer.

    Raises:
        UserError: the stream is too short, or its data cannot be used.
    """
    before = max(stream.num_workers, 0) + 1
    num_batches = min(num_batches, len(stream) - before)
    if num_batches < 1:
        raise UserError(f"{stream.mixture}: {len(stream)} batches are too few for a profile: it needs {before + 1}")
    samples = 0
    begin, at_begin = 0.0, dict[str, float]()
    for number, batch in enumerate(stream):
        if number >= before:
            samples += len(batch)
        if number == before - 1:
            begin, at_begin = time.perf_counter(), dict(stream.seconds)
        if number == before + num_batches - 1:
            break
    seconds = time.perf_counter() - begin
    by_stage = {name: stream.seconds[name] - at_begin[name] for name in (*TIMED, "wait")}
    return Profile(samples, seconds, by_stage, stream.num_workers)
