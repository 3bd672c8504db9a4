"""One function over many items in several processes: results in the items' order, few of them in memory at a time."""

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

FEW = 64  # items that one process finishes before others have started
CHUNK = 8  # items that go to a process together
CHUNKS_AHEAD = 3  # chunks a process that are under way or wait for their turn
_GRACE = 2.0  # seconds for a process to leave what it does


def map_in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    num_proc: int | None = None,
    few: int = FEW,
    chunk: int = CHUNK,
    preload: Sequence[str] = (),
    flag: str = "--num-proc",
    forked: bool = False,
) -> Generator[Result, None, None]:
    """Give ``function(item)`` of every item, in the items' order, however many processes share the work.

    The items are taken in this process, at most ``num_proc * CHUNKS_AHEAD * chunk`` ahead of the results. Close the
    generator (or use it up) to end its processes; they also end when this one is killed.

    Args:
        function: what to do; it and items and results must pickle.
        items: any number of them.
        num_proc: processes; None for one a core.
        few: fewer items than that are done in this process.
        chunk: items that go to a process together.
        preload: modules that are imported once for all processes.
        flag: what sets ``num_proc``, for messages.
        forked: let the processes be copies of this one, which start at once; only where nothing has started threads.

    Raises:
        UserError: ``num_proc`` is below 1.
        RunStopped: a process was killed, as happens where memory runs out.
    """
    require_num_proc(num_proc, flag)
    count = num_proc or available_cores()
    rest = iter(items)
    first = [] if count == 1 else list(islice(rest, few))
    if len(first) < few:
        yield from map(function, chain(first, rest))
        return
    chunks = iter(partial(_take, chain(first, rest), chunk), [])
    yield from _map_in_processes(function, chunks, count, _make_context(preload, forked), flag)


def map_shards(
    function: Callable[[Item], Result],
    shards: Sequence[Item],
    workers: int | None,
    preload: Sequence[str],
    forked: bool = False,
) -> Generator[Result, None, None]:
    """Do what :func:`map_in_order` does for shards, of which one alone is work enough for a process.

    Raises:
        UserError: ``workers`` is below 1.
        RunStopped: a process was killed.
    """
    require_num_proc(workers, "--workers")
    count = min(workers or available_cores(), max(len(shards), 1))
    yield from map_in_order(function, shards, count, 2, 1, preload, "--workers", forked)


def require_num_proc(num_proc: int | None, flag: str = "--num-proc") -> None:
    """Raise ``UserError`` unless it is None or at least 1."""
    if num_proc is not None and num_proc < 1:
        raise UserError(f"{flag} must be at least 1, got {num_proc}")


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _make_context(preload: Sequence[str], forked: bool) -> BaseContext:
    methods = multiprocessing.get_all_start_methods()
    if forked and sys.platform == "linux":
        return multiprocessing.get_context("fork")
    # Sources may have started threads, whose locks a forked child would find held for ever.
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(list(preload))
    return context


def _map_in_processes(
    function: Callable[[Item], Result], chunks: Iterator[list[Item]], count: int, context: BaseContext, flag: str
) -> Iterator[Result]:
    told, tell = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_process, initargs=(told, tell))
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
            f"one of the {count} processes was killed (by the system, if memory ran out); try a smaller {flag}"
        ) from None
    except BaseException:
        tell.close()  # nobody wants what is under way, which can be a download of minutes
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        tell.close()
        told.close()


def _take(items: Iterator[Item], count: int) -> list[Item]:
    return list(islice(items, count))


class _Stop:
    """The end of a worker process, when its parent asks for it (SIGTERM).

    It interrupts items only. A result that is half written would leave the parent waiting for the rest of it.
    """

    asked = False
    can_interrupt = False

    @classmethod
    def ask(cls, *_: object) -> None:
        """Interrupt the chunk that is being worked on, or the next one before it begins."""
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


def _start_process(told: connection.Connection, tell: connection.Connection) -> None:
    """Leave Ctrl-C to the parent, and end when it says so, or with it, however it ends."""
    tell.close()  # so that the parent has the only one
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _Stop.ask)
    threading.Thread(target=_end_with_parent, args=(told,), daemon=True).start()


def _end_with_parent(told: connection.Connection) -> None:
    told.poll(None)
    os.kill(os.getpid(), signal.SIGTERM)  # so that a command that it runs ends too
    time.sleep(_GRACE)
    os._exit(1)
