"""Describe the machine of a measurement: hardware, versions, threads and load."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

ROOT = Path(__file__).parents[3]


def num_threads(asked: int | None) -> int:
    """Return the CPU threads to use: as asked, or one per CPU that this process may run on."""
    if asked is not None:
        return asked
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_load() -> str:
    """Return the load average of the last minute; more than the benchmark's threads means other work."""
    return f"{os.getloadavg()[0]:.2f}"


def describe_machine(threads: int | None) -> str:
    """Return two lines: machine and load; versions and threads."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{_processor()}, {num_threads(None)} CPUs, {memory:.1f} GiB, {platform.system()} {platform.release()}"
    if torch.cuda.is_available():
        machine += f", {torch.cuda.get_device_name()} with {torch.cuda.mem_get_info()[1] / 2**30:.0f} GiB"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, open_clip {version('open_clip_torch')}"
    return (
        f"machine: {machine}; load at the start {describe_load()}\n"
        f"versions: {versions}, bimodal_cl {version('bimodal_cl')} ({describe_commit(ROOT)}); "
        f"threads {num_threads(threads)}"
    )


def describe_commit(folder: Path) -> str:
    """Return a folder's short git commit, with ``+`` if files differ from it; ``no commit`` outside a repository."""
    try:
        commit = _git(folder, "rev-parse", "--short", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "no commit"


def free_memory(device: str) -> int:
    """Return the free bytes on ``"cpu"`` or ``"cuda"``."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
