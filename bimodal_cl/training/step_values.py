"""Collect the values that a logging step writes: progress, loss, metrics, learning rate, time and memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil
import torch
from accelerate.utils import gather_object
from torch import Tensor

from bimodal_cl.data.pipeline.stream import Stream
from bimodal_cl.distributed import reduce_max
from bimodal_cl.losses import LossOutput
from bimodal_cl.optim import DECAYED, rates_by_part
from bimodal_cl.training.batch_statistics import describe_batch
from bimodal_cl.training.run_settings import RunSettings
from bimodal_cl.training.seen_data import SeenData


class StepValues:
    """Gives the values of a step's line in the log; times are those since the line before.

    Args:
        settings: the run's numbers.
        learning_rates_at: learning rates of a step, by the name of the parameter group.
        stream: this rank's batches.
        steps_done: optimizer steps before the first that is logged.
        seen: the samples before the stream.
    """

    def __init__(
        self,
        settings: RunSettings,
        learning_rates_at: Callable[[int], dict[str, float]],
        stream: Stream,
        steps_done: int,
        seen: SeenData,
    ) -> None:
        self._settings, self._learning_rates_at, self._stream, self._seen = settings, learning_rates_at, stream, seen
        self._clock, self._waited, self._logged = time.monotonic(), 0.0, steps_done

    def leave_out(self, seconds: float) -> None:
        """Take time that was not spent on training, such as that of an evaluation, out of the next line."""
        self._clock += seconds

    def progress(self, steps_done: int) -> dict[str, Any]:
        """Return ``step``, ``epoch`` and ``samples_seen`` after so many steps."""
        return {
            "step": steps_done,
            "epoch": steps_done / self._settings.steps_per_epoch,
            "samples_seen": steps_done * self._settings.global_batch_size,
        }

    def count_data(self) -> SeenData:
        """Return the counts of the samples so far, over all ranks, each of which must call this."""
        report = self._stream.report()
        mine = SeenData(report.by_kind, report.used, self._stream.samples_by_set)
        return sum(gather_object([mine]), start=self._seen)

    def __call__(self, steps_done: int, out: LossOutput, grad_norm: Tensor | None) -> dict[str, Any]:
        """Return the values of the last step; every rank must call this.

        Args:
            steps_done: optimizer steps so far.
            out: the loss of the last step.
            grad_norm: norm of its gradient before clipping, 0-d; None where it is not computed. One that is not finite,
                in a step that the scaler of fp16 leaves out, is None in the values: JSON has no infinity.
        """
        now, waited = time.monotonic(), self._stream.seconds["wait"]
        seconds, waiting = now - self._clock, waited - self._waited
        self._clock, self._waited = now, waited
        since, self._logged = steps_done - self._logged, steps_done
        by_set = {}
        if len(self._stream.mixture.names) > 1:
            by_set = {f"samples_seen/{name}": n for name, n in self.count_data().samples_by_set.items()}
        rates = self._learning_rates_at(steps_done - 1)
        values = {"loss": out.loss.detach(), **out.metrics, **describe_batch(out.batch)}
        numbers = torch.stack([value.float() for value in values.values()]).tolist()  # one wait for the device
        return {
            **self.progress(steps_done),
            **by_set,
            **dict(zip(values, numbers, strict=True)),
            "learning_rate": rates[DECAYED],
            **{f"learning_rate/{part}": rate for part, rate in rates_by_part(rates).items()},
            "grad_norm": None if grad_norm is None or not grad_norm.isfinite() else float(grad_norm),
            "seconds": seconds,
            "data_seconds": waiting,
            "data_share": waiting / seconds,
            "samples_per_second": since * self._settings.global_batch_size / seconds,
            "memory_mib": measure_memory(out.loss.device),
        }


def measure_memory(device: torch.device) -> float:
    """Return the memory of the rank that uses most, in MiB; every rank must call this.

    On CUDA it is the peak of what tensors took on the device since the process began. On a CPU it is the resident set
    of the process now, without its data workers.
    """
    on_device = device.type == "cuda"
    used = torch.cuda.max_memory_allocated(device) if on_device else psutil.Process().memory_info().rss
    return float(reduce_max(torch.tensor(used / 2**20, device=device)))
