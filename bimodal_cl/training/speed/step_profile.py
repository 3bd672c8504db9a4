"""Profile some steps of a training: where the time of a step goes, and a trace of every operation."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from torch.profiler import ProfilerActivity, profile

from bimodal_cl.errors import UserError
from bimodal_cl.training.seen_data import SeenData
from bimodal_cl.training.speed.step_parts import PARTS, WAIT, StepClock, part
from bimodal_cl.training.step_values import StepValues

if TYPE_CHECKING:
    from bimodal_cl.data.pipeline.stream import Batch

WARM_UP_STEPS = 3  # workers start, memory is allocated, kernels are chosen
MOST_TRACED_STEPS = 10  # a trace of more is too large for a browser


@dataclass(frozen=True)
class StepProfile:
    """The time of some steps.

    Args:
        num_steps: that were timed.
        pairs: of a step, over all ranks.
        seconds: of all of them, by the names of ``PARTS``, of each rank.
        traces: the files of the traces, in the order of the ranks.
    """

    num_steps: int
    pairs: int
    seconds: list[dict[str, float]]
    traces: list[Path]

    def milliseconds(self) -> dict[str, list[float]]:
        """Return the milliseconds of a step, by part, of each rank."""
        return {name: [1e3 * rank[name] / self.num_steps for rank in self.seconds] for name in PARTS}

    def lines(self) -> list[str]:
        """Return the lines of a table to print; with several ranks, their mean and their range."""
        parts = self.milliseconds()
        ranks = len(self.seconds)
        whole = sum(sum(each) for each in parts.values()) / ranks
        over = f", mean of {ranks} processes" if ranks > 1 else ""
        lines = [
            f"{self.num_steps} steps of {self.pairs} pairs: {whole:.1f} ms a step, {1e3 * self.pairs / whole:,.1f} "
            f"pairs a second{over}",
            f"{'part':14}  {'ms a step':>9}  {'share':>6}" + ("  range over processes" if ranks > 1 else ""),
        ]
        for name, each in parts.items():
            mean = sum(each) / ranks
            span = f"  {min(each):.1f} .. {max(each):.1f}" if ranks > 1 else ""
            lines.append(f"{name:14}  {mean:9.1f}  {mean / whole:6.1%}{span}")
        lines += [f"trace: {trace}" for trace in self.traces]
        return lines


def profile_steps(trainer: Any, num_steps: int, folder: Path) -> StepProfile | None:
    """Train some steps from the start of the training, time them, trace some more, and write what was found.

    The steps are those of a training, with their log's values; nothing is evaluated and no checkpoint is written. The
    first steps are not measured. The timed steps run without the tracer, which slows them down.

    Args:
        trainer: a new :class:`~bimodal_cl.trainer.Trainer`.
        num_steps: to time; as many are traced, at most ``MOST_TRACED_STEPS``.
        folder: gets ``rank0.json``, one Chrome trace for each process, and ``steps.json``, milliseconds by part.

    Returns:
        The profile on the main process, None on the others.

    Raises:
        UserError: the training is too short.
    """
    traced = min(num_steps, MOST_TRACED_STEPS)
    needed = WARM_UP_STEPS + num_steps + traced
    if needed > trainer.settings.num_steps:
        raise UserError(
            f"--profile-steps {num_steps}: with {WARM_UP_STEPS} steps before and {traced} traced ones it takes "
            f"{needed}, and the training has {trainer.settings.num_steps}; lower it or train longer"
        )
    trainer.start()
    accelerator = trainer.accelerator
    on_gpu = accelerator.device.type == "cuda"
    clock = StepClock(torch.cuda.synchronize if on_gpu else lambda: None)
    stream = trainer.open_stream(0, 0)
    values = StepValues(trainer.settings, trainer.learning_rates_at, stream, 0, SeenData())

    def train(count: int) -> None:
        for batch in islice(_watched(batches), count):
            out, grad_norm = trainer.step(batch)
            if out is not None and trainer.settings.is_logged(trainer.steps_done):
                values(trainer.steps_done, out, grad_norm)

    with closing(iter(stream)) as batches:
        train(WARM_UP_STEPS)
        accelerator.wait_for_everyone()
        with clock.running():
            train(num_steps)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        with profile(activities=activities) as tracer, StepClock(lambda: None).running():
            train(traced)
    folder.mkdir(parents=True, exist_ok=True)
    trace = folder / f"rank{accelerator.process_index}.json"
    tracer.export_chrome_trace(str(trace))
    ranks = gather_object([(clock.seconds, str(trace))])
    if not accelerator.is_main_process:
        return None
    traces = [Path(path) for _, path in ranks]
    found = StepProfile(num_steps, trainer.settings.global_batch_size, [seconds for seconds, _ in ranks], traces)
    report = {"steps": num_steps, "pairs": found.pairs, "milliseconds": found.milliseconds()}
    (folder / "steps.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return found


def _watched(batches: Any) -> Any:
    """Count the time of waiting for each batch."""
    while True:
        with part(WAIT):
            batch: Batch | None = next(batches, None)
        if batch is None:
            return
        yield batch
