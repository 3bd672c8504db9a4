"""Run a function in a process of its own, so that one measurement leaves nothing behind for the next."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

# Each process is forked from a server that has only imported what is measured. (It finds the second
# module where the working directory is the repository's root; elsewhere each process imports it for itself.)
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch", "tests.benchmarks.loss_measurements"])


class ProcessKilled(RuntimeError):
    """The process was killed before it answered, usually because memory ran out."""


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``function(*arguments)`` in a new process and return what it returns.

    Args:
        function: of a module's top level, so that it can be pickled by name; likewise the arguments.

    Raises:
        ProcessKilled: the process died.
        Exception: whatever the function raises.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=_context) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            raise ProcessKilled(f"the process that ran {function.__name__} was killed") from None
