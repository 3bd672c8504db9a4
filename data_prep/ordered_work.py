"""One function over many items in several processes: results in the items' order, few of them in memory at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import chain, islice
from typing import TypeVar

from bimodal_cl.errors import RunStopped, UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

FEW = 64  # items that one process finishes before others have started
CHUNK = 8  # items that go to a process together
PRELOADED = ["data_prep.writer", "PIL.JpegImagePlugin", "PIL.PngImagePlugin"]  # imported once for all processes
CHUNKS_AHEAD = 3  # chunks a process that are under way or wait for their turn


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], num_proc: int | None = None
) -> Generator[Result, None, None]:
    """Give ``function(item)`` of every item, in the items' order, however many processes share the work.

    The items are taken in this process, at most ``num_proc * CHUNKS_AHEAD * CHUNK`` ahead of the results. Close the
    generator (or use it up) to end its processes; they also end when this one is killed.

    Args:
        function: what to do; it and items and results must pickle.
        items: any number of them.
        num_proc: processes; None for one a core. Fewer than ``FEW`` items are done in this process.

    Raises:
        UserError: ``num_proc`` is below 1.
        RunStopped: a process was killed, as happens where memory runs out.
    """
    require_num_proc(num_proc)
    count = num_proc or available_cores()
    rest = iter(items)
    first = [] if count == 1 else list(islice(rest, FEW))
    if len(first) < FEW:
        yield from map(function, chain(first, rest))
        return
    yield from _map_in_processes(function, chain(first, rest), count)


def require_num_proc(num_proc: int | None) -> None:
    """Raise ``UserError`` unless it is None or at least 1."""
    if num_proc is not None and num_proc < 1:
        raise UserError(f"--num-proc must be at least 1, got {num_proc}")


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _map_in_processes(function: Callable[[Item], Result], items: Iterable[Item], count: int) -> Iterator[Result]:
    # Not forked: sources may have started threads, whose locks a forked child would find held for ever.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(PRELOADED)
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_process)
    pending: deque[Future[list[Result]]] = deque()
    chunks = iter(partial(_take, iter(items)), [])
    try:
        for chunk in chunks:
            pending.append(pool.submit(_map_chunk, function, chunk))
            if len(pending) >= count * CHUNKS_AHEAD:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except BrokenProcessPool:
        raise RunStopped(
            f"one of the {count} processes was killed (by the system, if memory ran out); try a smaller --num-proc"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _take(items: Iterator[Item]) -> list[Item]:
    return list(islice(items, CHUNK))


def _map_chunk(function: Callable[[Item], Result], chunk: list[Item]) -> list[Result]:
    return [function(item) for item in chunk]


def _start_process() -> None:
    """Leave Ctrl-C to the parent, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
