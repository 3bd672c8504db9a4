"""Map a function over items in several processes, with results in the items' order and few of them in memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import chain, islice
from multiprocessing import connection
from multiprocessing.context import BaseContext
from typing import TypeVar

from bimodal_cl.errors import RunStopped, UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

FEW = 64  # items below which starting processes takes longer than the work
CHUNK = 8  # items sent to a process at once
CHUNKS_AHEAD = 3  # chunks submitted per process before their results are needed
_GRACE = 2.0  # seconds between asking a process to end and ending it


def map_in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    num_workers: int | None = None,
    few: int = FEW,
    chunk: int = CHUNK,
    preload: Sequence[str] = (),
    forked: bool = False,
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` for every item, in the items' order, whatever the number of processes.

    The items are read in this process, at most ``num_workers * CHUNKS_AHEAD * chunk`` ahead of the results. Close or
    exhaust the generator to end its processes; they also end if this process is killed.

    Args:
        function: the work on one item; the function, the items and the results must pickle.
        items: any number of items.
        num_workers: number of processes; None for one per core.
        few: fewer items than this are worked on in this process.
        chunk: items sent to a process at once.
        preload: modules that are imported once for all processes.
        forked: fork this process, which is fast, but only safe if it has started no threads.

    Raises:
        UserError: ``num_workers`` is below 1.
        RunStopped: a process was killed, as the system does when memory runs out.
    """
    require_num_workers(num_workers)
    count = num_workers or available_cores()
    rest = iter(items)
    first = [] if count == 1 else list(islice(rest, few))
    if len(first) < few:
        yield from map(function, chain(first, rest))
        return
    chunks = iter(partial(_take, chain(first, rest), chunk), [])
    yield from _map_in_processes(function, chunks, count, _make_context(preload, forked))


def map_shards(
    function: Callable[[Item], Result],
    shards: Sequence[Item],
    num_workers: int | None,
    preload: Sequence[str],
    forked: bool = False,
) -> Generator[Result, None, None]:
    """Map a function over shards as :func:`map_in_order` does, one shard at a time per process.

    Raises:
        UserError: ``num_workers`` is below 1.
        RunStopped: a process was killed.
    """
    require_num_workers(num_workers)
    count = min(num_workers or available_cores(), max(len(shards), 1))
    yield from map_in_order(function, shards, count, 2, 1, preload, forked)


def require_num_workers(num_workers: int | None) -> None:
    """Raise ``UserError`` unless ``num_workers`` is None or at least 1."""
    if num_workers is not None and num_workers < 1:
        raise UserError(f"--num-workers must be at least 1, got {num_workers}")


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _make_context(preload: Sequence[str], forked: bool) -> BaseContext:
    methods = multiprocessing.get_all_start_methods()
    if forked and sys.platform == "linux":
        return multiprocessing.get_context("fork")
    # A source may have started threads, and a fork would copy their held locks.
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(list(preload))
    return context


def _map_in_processes(
    function: Callable[[Item], Result], chunks: Iterator[list[Item]], count: int, context: BaseContext
) -> Iterator[Result]:
    reader, writer = context.Pipe(duplex=False)  # the processes end when this one closes the writer, or dies
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_process, initargs=(reader, writer))
    pending: deque[Future[list[Result]]] = deque()
    try:
        for chunk in chunks:
            pending.append(pool.submit(_map_chunk, function, chunk))
            if len(pending) >= count * CHUNKS_AHEAD:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except BrokenProcessPool:
        raise RunStopped(
            f"one of the {count} processes was killed (by the system, if memory ran out); try a smaller --num-workers"
        ) from None
    except BaseException:
        writer.close()  # results of the running work, perhaps a download of minutes, are no longer wanted
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        writer.close()
        reader.close()


def _take(items: Iterator[Item], count: int) -> list[Item]:
    return list(islice(items, count))


class _Stop:
    """End a worker process when its parent asks for it (SIGTERM).

    Only the work on items is interrupted: after half a result, the parent would wait for the rest forever.
    """

    asked = False
    can_interrupt = False

    @classmethod
    def ask(cls, *_: object) -> None:
        """Interrupt the current chunk, or the next one before it begins."""
        cls.asked = True
        if cls.can_interrupt:
            sys.exit(1)


def _map_chunk(function: Callable[[Item], Result], chunk: list[Item]) -> list[Result]:
    _Stop.can_interrupt = True
    try:
        if _Stop.asked:
            sys.exit(1)
        return [function(item) for item in chunk]
    finally:
        _Stop.can_interrupt = False


def _start_process(reader: connection.Connection, writer: connection.Connection) -> None:
    """Ignore Ctrl-C, and end when the parent closes its end of the pipe, on purpose or by dying."""
    writer.close()  # so that the parent holds the only one
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _Stop.ask)
    threading.Thread(target=_end_with_parent, args=(reader,), daemon=True).start()


def _end_with_parent(reader: connection.Connection) -> None:
    reader.poll(None)
    os.kill(os.getpid(), signal.SIGTERM)  # it interrupts the item, which can end a command that it runs
    time.sleep(_GRACE)
    os._exit(1)
