"""Ask a run by a signal to finish its step, save and end; all ranks agree on the step after which they stop.

SLURM sends ``SIGUSR1`` (``--signal=USR1@120``) or ``SIGTERM`` before a job's time is over, a terminal sends ``SIGINT``
for Ctrl-C. The first of them is noted, and the step goes on. A second Ctrl-C stops at once, as Ctrl-C always does;
a second ``SIGTERM`` or ``SIGUSR1`` changes nothing, because schedulers send several.

A signal may reach one rank alone, or several at different steps. So the ranks exchange what they have noted in every
step, by one all-reduce of a number that is read a step later, when it has long arrived. It is read right after the
loss, which waits for the device in any case, so that it costs no synchronization of its own.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from bimodal_cl.distributed import world_size

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))


class EvaluationLeft(BaseException):
    """Raised by a signal within :meth:`StopRequest.leaving`, like ``KeyboardInterrupt`` not an ``Exception``."""


class StopRequest:
    """Notes the first signal that asks the run to stop; a context in which the signals' handlers are ours.

    Handlers are set in the main thread only, as Python demands. A ``SIGINT`` that is ignored, as in background
    jobs of a shell, stays ignored.

    Args:
        device: of the tensors that the ranks exchange.
        announce: whether this process prints that it has noted a signal.
    """

    def __init__(self, device: torch.device, announce: bool = True) -> None:
        self._device, self._announce = device, announce
        self._noted = self._agreed = 0  # numbers of signals; 0: none
        self._leaving = False
        self._exchanged: tuple[torch.Tensor, Any] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                if number is signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: it was not set by Python
        self._before = {}

    @property
    def agreed(self) -> str | None:
        """The signal after which all ranks stop, such as ``"SIGTERM"``; None while they go on. Equal on all ranks."""
        return signal.Signals(self._agreed).name if self._agreed else None

    def settle(self) -> None:
        """Agree to stop, where this is the only rank; call it after a step, before asking whether it is to be saved.

        A signal that comes later waits for the next step, so that no run ends after a step that it has not saved.
        """
        if world_size() == 1:
            self._agreed = self._agreed or self._noted

    def exchange(self) -> None:
        """Send the other ranks what this one has noted, and read what they sent a step ago; call it once a step."""
        if world_size() == 1:
            return
        if self._exchanged is not None:
            numbers, work = self._exchanged
            work.wait()
            self._agreed = self._agreed or int(numbers.item())
        numbers = torch.tensor(self._noted, device=self._device)
        self._exchanged = numbers, dist.all_reduce(numbers, op=dist.ReduceOp.MAX, async_op=True)

    def agree(self, number: int) -> None:
        """Stop after this step: every rank calls this with the number of a signal that it got from another way."""
        self._agreed = self._agreed or number

    @property
    def noted(self) -> int:
        """The number of the signal that this rank has noted, 0 for none."""
        return self._noted

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Leave the block at once when a signal comes, or has come before it.

        Raises:
            EvaluationLeft: there was a signal.
        """
        self._leaving = True
        try:
            if self._noted:
                raise EvaluationLeft
            yield
        finally:
            self._leaving = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._noted:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self._noted = number
        if self._announce:
            name = signal.Signals(number).name
            line = f"{name}: the run finishes this step, saves and ends; Ctrl-C (again) stops it at once\n"
            os.write(2, line.encode())  # `print` may be in the middle of a line of its own
        if self._leaving:
            raise EvaluationLeft
