"""Start trainings in processes of their own, send them signals, and continue them by the command that they print."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.test_training.processes.launching import ROOT, start_launcher, start_python
from tests.test_training.run_files import read_log


def start_training(config: Path, num_processes: int = 1, *flags: str) -> subprocess.Popen:
    """Start the training command on one process, or under ``accelerate launch``."""
    command = ["-m", "bimodal_cl.train", "--config", str(config), *flags]
    if num_processes == 1:
        return start_python(*command, start_new_session=True)
    return start_launcher(num_processes, *command)


def wait_for_step(process: subprocess.Popen, run: Path, step: int) -> None:
    """Wait until a run has logged a step."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (run / "metrics.jsonl").exists() and any(line.get("step", 0) >= step for line in read_whole_lines(run)):
            return
        time.sleep(0.02)
    raise AssertionError(process.communicate()[1])


def read_whole_lines(run: Path) -> list[dict]:
    """Return the log's lines so far, also while the run appends one."""
    try:
        return read_log(run)
    except ValueError:
        return []


def find_ranks(process: subprocess.Popen) -> list[psutil.Process]:
    """Return the launched training processes, in the order of their ranks."""
    children = psutil.Process(process.pid).children()
    return sorted((each for each in children if "bimodal_cl.train" in each.cmdline()), key=lambda each: each.pid)


def signal_group(process: subprocess.Popen, number: signal.Signals) -> None:
    """Signal a process with all its workers, as a terminal or a scheduler does."""
    os.killpg(process.pid, number)


def printed_command(errors: str) -> list[str]:
    """Return the command that a stopped run printed, with this Python, and check that there is one."""
    (line,) = [line for line in errors.splitlines() if "continue with: " in line]
    words = shlex.split(line.partition("continue with: ")[2])
    if words[0] == "python":
        return [sys.executable, *words[1:]]
    return [str(Path(sys.executable).with_name(words[0])), *words[1:]]


def continue_run(errors: str) -> subprocess.CompletedProcess:
    """Run the command that a stopped run printed, to the end."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        printed_command(errors), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done
