"""Start trainings as forks of a process that has imported everything, so that a life of a run starts at once."""

import contextlib
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import bimodal_cl.build  # noqa: F401 - with torch: what a fork finds imported
from bimodal_cl import train
from bimodal_cl.run_folder import RunFolder


class ForkedRun:
    """A training in processes of its own, one for each rank, in a process group of their own, as a shell's job.

    Args:
        argv: arguments of the training command.
        errors: the file that gets the standard error of all ranks.
        num_ranks: how many processes train together.
    """

    def __init__(self, argv: Sequence[str], errors: Path, num_ranks: int = 1) -> None:
        self.errors = errors
        port = _free_port()
        self.ranks: list[int] = []
        for rank in range(num_ranks):
            process = os.fork()
            if process == 0:
                _train(argv, errors, rank, num_ranks, port, group=self.ranks[0] if self.ranks else 0)
            with contextlib.suppress(PermissionError, ProcessLookupError):
                os.setpgid(process, self.ranks[0] if self.ranks else process)
            self.ranks.append(process)
        self._statuses: dict[int, int] = {}

    def is_running(self) -> bool:
        """Return whether a rank is still there."""
        for process in self.ranks:
            if process not in self._statuses:
                ended, status = os.waitpid(process, os.WNOHANG)
                if ended:
                    self._statuses[process] = os.waitstatus_to_exitcode(status)
        return len(self._statuses) < len(self.ranks)

    def send(self, number: signal.Signals, generator: random.Random | None = None) -> str:
        """Signal all processes, data workers too, or, with a generator, now and then one rank alone."""
        if generator is not None and generator.random() < 0.5:
            rank = generator.randrange(len(self.ranks))
            os.kill(self.ranks[rank], number)
            return f"rank {rank}"
        os.killpg(self.ranks[0], number)
        return "all processes"

    def wait(self, seconds: float = 120) -> list[int]:
        """Wait for the end and return the ranks' exit statuses, negative for a signal."""
        deadline = time.monotonic() + seconds
        while self.is_running():
            if time.monotonic() > deadline:
                os.killpg(self.ranks[0], signal.SIGKILL)
                raise AssertionError(f"still running after {seconds} seconds: {self.errors.read_text()}")
            time.sleep(0.002)
        return [self._statuses[process] for process in self.ranks]


def last_step(run: RunFolder) -> int:
    """Return the step of the newest whole line of a run's log, 0 where there is none."""
    if not run.metrics.exists():
        return 0
    with run.metrics.open("rb") as file:
        file.seek(max(0, run.metrics.stat().st_size - 8192))
        lines = file.read().split(b"\n")[:-1]
    steps = [line.partition(b'"step": ')[2].split(b",")[0] for line in lines]
    return max((int(step) for step in steps if step.isdigit()), default=0)


def _train(argv: Sequence[str], errors: Path, rank: int, num_ranks: int, port: int, group: int) -> None:
    status = 1
    try:
        with contextlib.suppress(PermissionError):
            os.setpgid(0, group)
        descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        if num_ranks > 1:
            names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks, "LOCAL_WORLD_SIZE": num_ranks}
            os.environ |= {name: str(value) for name, value in names.items()}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
        status = train.main(list(argv))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
