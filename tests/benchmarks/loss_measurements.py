"""Measure losses in processes of their own: peak memory of one case, times of several cases in turn."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tests.benchmarks.loss_cases import Case, Inputs, Step, build_our_step, draw_inputs
from tests.benchmarks.measure.peak_memory import PeakMemory, return_freed_memory
from tests.benchmarks.measure.timing import synchronizer, time_in_turn
from tests.benchmarks.peers import build_peer_step


@dataclass(frozen=True)
class Setting:
    """Settings that all cases of a table share.

    Attributes:
        batch_size: B.
        dim: D.
        device: ``"cpu"`` or ``"cuda"``.
        threads: of the CPU.
    """

    batch_size: int
    dim: int
    device: str
    threads: int

    def begin(self) -> Inputs:
        """Prepare this process and draw the inputs."""
        torch.set_num_threads(self.threads)
        return draw_inputs(self.batch_size, self.dim, self.device)


class NotInThisVersion(RuntimeError):
    """A peer's version lacks the loss."""


@dataclass(frozen=True)
class Memory:
    """Bytes above the inputs in one step: the most at once, and what is left when it is done (gradients, caches)."""

    peak: int | None
    held: int | None


@dataclass(frozen=True)
class Timing:
    """A case's seconds, round by round, and its first gradient's cosine with the first case's."""

    seconds: list[float]
    cosine: float


def measure_memory(case: Case, setting: Setting) -> Memory:
    """Measure the peak memory of building a loss, a forward and a backward pass, feature gradients included.

    A first instance is built, run and dropped, so that one-time set-up of libraries is not counted.
    """
    if setting.device == "cpu":
        return_freed_memory()
    inputs = setting.begin()
    run_step(_build(case, inputs), inputs)
    inputs.clear_gradients()
    gc.collect()
    with PeakMemory(setting.device) as memory:
        step = _build(case, inputs)
        run_step(step, inputs)
        gc.collect()
    return Memory(memory.peak, memory.held)


def measure_times(cases: Sequence[Case], setting: Setting, rounds: int, seconds: float) -> dict[str, Timing | str]:
    """Time a forward and a backward pass of each case, in turn; a peer's failure gives a text instead."""
    inputs = setting.begin()
    steps, cosines, failures = {}, {}, {}
    first: torch.Tensor | None = None
    for case in cases:
        try:
            steps[case.name] = _build(case, inputs)
            run_step(steps[case.name], inputs)
        except Exception as error:  # a peer's code of any version: its row shows the failure
            if case.is_ours:
                raise
            steps.pop(case.name, None)
            failures[case.name] = f"failed: {type(error).__name__}: {error}"
            continue
        gradient = inputs.gradient().flatten().double()
        first = gradient if first is None else first
        cosines[case.name] = torch.nn.functional.cosine_similarity(first, gradient, dim=0).item()
    work = {name: lambda step=step: run_step(step, inputs) for name, step in steps.items()}
    times = time_in_turn(work, rounds, seconds, synchronizer(setting.device))
    return failures | {name: Timing(times[name], cosines[name]) for name in times}


def run_step(step: Step, inputs: Inputs) -> None:
    """Run one forward and one backward pass; earlier gradients are dropped first."""
    inputs.clear_gradients()
    device = inputs.ids.device.type
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        loss = step(inputs.image_features, inputs.text_features)
    loss.backward()


def _build(case: Case, inputs: Inputs) -> Step:
    step = build_our_step(case, inputs) if case.is_ours else build_peer_step(case, inputs)
    if step is None:
        raise NotInThisVersion("not in this version")
    return step
