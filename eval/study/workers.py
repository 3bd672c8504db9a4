"""Worker processes that live as long as the study, so that each imports torch once; each trains with one thread."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any

from .one_run import Job, do_run

_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
_SECONDS_TO_SAVE = 120.0


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection


class Workers:
    """Processes that do runs; a context at whose end they have ended.

    When the block is left by an exception, runs under way save their state first. A worker whose parent is killed does
    the same.

    Args:
        count: of the processes.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._idle: list[_Worker] = []
        self._busy: dict[int, _Worker] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for worker in self._idle:
            worker.connection.close()  # ends the worker
        for worker in self._busy.values():
            worker.process.terminate()
        for worker in [*self._idle, *self._busy.values()]:
            worker.process.join(_SECONDS_TO_SAVE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def _next_idle(self) -> _Worker | None:
        while self._idle:
            worker = self._idle.pop()
            if worker.process.is_alive():
                return worker
            worker.connection.close()
        return None

    def do(self, jobs: Sequence[Job]) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Do all jobs, and yield the number of each with what became of it as soon as it has ended.

        None stands for a job whose worker was asked by a signal to stop. One whose worker was killed has failed.
        """
        waiting = deque(range(len(jobs)))
        while waiting or self._busy:
            while waiting and len(self._busy) < self._count:
                worker = self._next_idle() or _start()
                number = waiting.popleft()
                worker.connection.send(jobs[number])
                self._busy[number] = worker
            ready = wait([each.connection for each in self._busy.values()])
            for number, worker in [(each, one) for each, one in self._busy.items() if one.connection in ready]:
                try:
                    outcome = worker.connection.recv()
                except EOFError:
                    outcome = _describe_end(worker.process)
                del self._busy[number]
                if worker.process.is_alive():
                    self._idle.append(worker)
                yield number, outcome


def _describe_end(process: SpawnProcess) -> dict[str, Any] | None:
    """Return what becomes of the job of a worker that has ended; None after a signal that asks to stop."""
    process.join()
    code = process.exitcode or 0
    if code in (0, -signal.SIGTERM):
        return None
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
    memory = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
    return {"failed": f"the process that trained it {how}{memory}"}


def _start() -> _Worker:
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(target=_work, args=(its,), name="study-worker")
    saved = {name: os.environ.get(name) for name in _ENVIRONMENT}
    # Ctrl-C reaches all processes of a terminal. It is this one that answers it, so the workers are born ignoring it.
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main else None
    os.environ.update(_ENVIRONMENT)
    try:
        process.start()
    finally:
        if in_main:
            signal.signal(signal.SIGINT, handler)
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    its.close()
    return _Worker(process, mine)


def _work(connection: Connection) -> None:
    """Do jobs until there are no more."""
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, BrokenPipeError):
        while True:
            outcome = do_run(connection.recv())
            if outcome is None:
                return
            connection.send(outcome)


def _end_with_parent() -> None:
    """Ask this process to save and end, as soon as its parent has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
