"""Start commands and scripts in two processes, as ``accelerate launch`` does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
LAUNCHER = [sys.executable, "-m", "accelerate.commands.launch"]
TWO = [*LAUNCHER, "--config_file", "configs/accelerate/two_processes_cpu.yaml"]


def start(command: list[str], *arguments: object, **keywords) -> subprocess.Popen:
    """Start a command in the repository's root, with one thread a process and without a hub."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [*command, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, cwd=ROOT, env=environment, **pipes, **keywords)


def launch(*arguments: object) -> tuple[int, str, str]:
    """Launch a script with two processes, and return exit status, output and messages once they have ended."""
    process = start(TWO, *arguments)
    output, errors = process.communicate(timeout=560)
    return process.returncode, output, errors
