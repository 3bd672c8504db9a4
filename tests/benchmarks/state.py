"""Measure the cost of the per-anchor tables: iSogCLR's state for ten million images and texts, batch 4096.

The state's part of a step is the step with its margins at hand already: ids and features checked, repeats grouped,
temperatures looked up, the tables updated, for both modalities. ``clip`` keeps no tables, so the same part of its step
is what is paid without any. Every round draws other ids, so that no row is in a cache. The tables are replicated: one
process holds all rows.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from bimodal_cl.losses import Margins, build_loss
from bimodal_cl.losses.module import contrastive
from tests.benchmarks.loss_cases import draw_inputs
from tests.benchmarks.measure.fresh_process import in_fresh_process
from tests.benchmarks.measure.machine import num_threads
from tests.benchmarks.measure.peak_memory import PeakMemory, return_freed_memory
from tests.benchmarks.measure.table import describe_bytes, format_table
from tests.benchmarks.measure.timing import describe_range, time_in_turn

ISOGCLR = {"rho": 1.0, "eta": 1e-5}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--num-anchors", type=int, default=10_000_000, help="images, and as many texts")
    parser.add_argument("--batch-size", type=int, default=4096, help="B")
    parser.add_argument("--dim", type=int, default=512, help="D")
    parser.add_argument("--rounds", type=int, default=15, help="how often each row is timed")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    if arguments.quick:
        arguments.num_anchors, arguments.batch_size, arguments.dim, arguments.rounds = 10_000, 64, 32, 3
    sizes = arguments.num_anchors, arguments.batch_size, arguments.dim
    threads = num_threads(arguments.threads)
    times = in_fresh_process(measure_times, *sizes, threads, arguments.rounds)
    tables, update = in_fresh_process(measure_memory, *sizes, threads)
    step = statistics.median(next(iter(times.values())))
    rows = [
        [name, *describe_range(seconds), f"{statistics.median(seconds) / step:.1%}"] for name, seconds in times.items()
    ]
    print(f"\nisogclr: N = {sizes[0]} images and texts, B = {sizes[1]}, D = {sizes[2]}: medians of {arguments.rounds}")
    print(format_table(["part", "time", "range", "of the step"], rows))
    print(f"memory: tables {describe_bytes(tables)}, at most {describe_bytes(update)} more while they are updated")


def measure_times(num_anchors: int, batch_size: int, dim: int, threads: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round: first the whole step, then the state's part for several losses."""
    torch.set_num_threads(threads)
    long = StatePart("isogclr", num_anchors, batch_size, dim, ISOGCLR)
    work = {
        "whole step, dense": long.run_whole_step,
        f"state, {num_anchors} rows": long.run,
        f"state, {batch_size} rows": StatePart("isogclr", batch_size, batch_size, dim, ISOGCLR).run,
        "state, clip without tables": StatePart("clip", num_anchors, batch_size, dim, {}).run,
    }
    adam = StatePart("isogclr", num_anchors, batch_size, dim, {**ISOGCLR, "tau_optimizer": "adam"})
    work[f"state, {num_anchors} rows, adam"] = adam.run
    for piece in work.values():
        piece()
    return time_in_turn(work, rounds)


def measure_memory(num_anchors: int, batch_size: int, dim: int, threads: int) -> tuple[int | None, int | None]:
    """Return the bytes of the tables, and the peak above them during the state's part of a step."""
    torch.set_num_threads(threads)
    return_freed_memory()
    part = StatePart("isogclr", batch_size, batch_size, dim, ISOGCLR)
    part.run()
    with PeakMemory() as tables:
        part.make_loss(num_anchors)
    part.run()
    with PeakMemory() as running:
        part.run()
    return tables.held, running.peak


class StatePart:
    """A step of a loss whose margins are already computed.

    Args:
        name: of the loss.
        num_anchors: rows of each table.
        batch_size: B.
        dim: D.
        hyperparameters: of the loss.
    """

    def __init__(self, name: str, num_anchors: int, batch_size: int, dim: int, hyperparameters: dict[str, Any]) -> None:
        self._name, self._hyperparameters = name, hyperparameters
        self._inputs = draw_inputs(batch_size, dim, "cpu")
        self._generator = torch.Generator().manual_seed(0)
        margin = torch.randn(batch_size, 1, generator=self._generator)
        self._margins = Margins(margin, margin.abs(), torch.full_like(margin, batch_size - 1))
        self.make_loss(num_anchors)

    def make_loss(self, num_anchors: int) -> None:
        """Build the loss with new tables."""
        self._num_anchors = num_anchors
        self.loss = build_loss(self._name, num_images=num_anchors, num_texts=num_anchors, **self._hyperparameters)

    def run_whole_step(self) -> None:
        """Run a forward and a backward pass."""
        self._inputs.clear_gradients()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about a rho that only suits a benchmark
            out = self.loss(self._inputs.image_features, self._inputs.text_features, self._draw_ids(), self._draw_ids())
        out.loss.backward()

    def run(self) -> None:
        """Run the state's part: a forward pass with given margins."""
        ready = mock.patch.object(contrastive, "compute_margins", lambda *_, **__: (self._margins, self._margins))
        with torch.no_grad(), ready, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.loss(self._inputs.image_features, self._inputs.text_features, self._draw_ids(), self._draw_ids())

    def _draw_ids(self) -> Tensor:
        """Draw ids from the whole tables, with replacement."""
        return torch.randint(self._num_anchors, (len(self._inputs.ids),), generator=self._generator)
