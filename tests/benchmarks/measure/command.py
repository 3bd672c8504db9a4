"""Run commands from the repository's root, and measure their time."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

from bimodal_cl.errors import UserError
from tests.benchmarks.measure.machine import ROOT


@dataclass(frozen=True)
class TimedCommand:
    """What a command took.

    Args:
        wall: seconds from its start to its exit.
        cpu: seconds of CPU time, of it and its children.
        printed: its standard output.
    """

    wall: float
    cpu: float
    printed: str


def run_command(command: list[str], environment: Mapping[str, str] = os.environ) -> str:
    """Run from the repository's root and return what is printed.

    Raises:
        UserError: it cannot be started, or fails; the message has the last line of its errors.
    """
    environment = {**environment, "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        raise UserError(f"{command[0]} {command[1]}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
    return done.stdout


def time_command(command: list[str], threads: int | None, **environment: str) -> TimedCommand:
    """Run a command, and measure it.

    Args:
        command: program and arguments.
        threads: CPU threads (``OMP_NUM_THREADS``); None: as the environment says.
        environment: variables beside those of this process.

    Raises:
        UserError: as :func:`run_command`.
    """
    if threads is not None:
        environment = {"OMP_NUM_THREADS": str(threads), **environment}
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    printed = run_command(command, {**os.environ, **environment})
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return TimedCommand(wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, printed)
