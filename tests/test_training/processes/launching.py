"""Start trainings in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
ACCELERATE = {1: "one_process", 2: "two_processes_cpu"}  # configs/accelerate, by the number of processes
SHARDED = "fsdp2_two_processes_cpu"


def start_python(*arguments: str, num_threads: int = 1, **keywords) -> subprocess.Popen:
    """Start Python with some arguments in the repository's root, without a hub."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(num_threads)}
    command = [sys.executable, *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **keywords
    )


def start_launcher(num_processes: int, *arguments: str, sharded: bool = False) -> subprocess.Popen:
    """Start ``accelerate launch`` with the configuration for a number of processes, or for two with FSDP."""
    config = f"configs/accelerate/{SHARDED if sharded else ACCELERATE[num_processes]}.yaml"
    return start_python("-m", "accelerate.commands.launch", "--config_file", config, *arguments)


def launch(config: Path, num_processes: int, *flags: str, sharded: bool = False) -> subprocess.CompletedProcess:
    """Train in a number of processes, and wait for them."""
    process = start_launcher(num_processes, "-m", "bimodal_cl.train", "--config", str(config), *flags, sharded=sharded)
    _, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, "", errors)
