"""Checks of the switches for speed against the machine: each returns one line or None."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from bimodal_cl.config.checks.world import World
from bimodal_cl.config.schema import Config


def _compilation_without_compiler(config: Config, world: World) -> str | None:
    if not config.train.compile:
        return None
    if world.device == "cuda":
        if importlib.util.find_spec("triton") is None:
            return "train.compile=true needs the package triton on a GPU: install it, or leave train.compile out"
        return None
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler.split()[0]) is None:
        return (
            f"train.compile=true needs a C++ compiler on the CPU, and '{compiler}' is not found: install one, name one "
            "by the environment variable CXX, or leave train.compile out"
        )
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return (
            f"train.compile=true needs Python's C headers on the CPU, and {sysconfig.get_path('include')} has no "
            "Python.h: install them (python3-dev), or leave train.compile out"
        )
    return None


def _compilation_of_shards(config: Config, world: World) -> str | None:
    if config.train.compile and world.fsdp:
        return "train.compile=true is not supported with FSDP; leave it out, or use DDP"
    return None


def _tf32_without_gpu(config: Config, world: World) -> str | None:
    if config.train.tf32 and world.device != "cuda":
        return "train.tf32=true has no effect: TF32 is a format of NVIDIA GPUs, and this run has none; leave it out"
    return None


SPEED_REFUSALS: tuple[Callable[[Config, World], str | None], ...] = (
    _compilation_of_shards,
    _compilation_without_compiler,
)
SPEED_WARNINGS: tuple[Callable[[Config, World], str | None], ...] = (_tf32_without_gpu,)
