"""Run jobs that wait for the network in several threads."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence


def run_concurrently(jobs: Sequence[Callable[[], None]], limit: int) -> None:
    """Run jobs that wait for the network, up to ``limit`` at a time, in random order.

    The threads are daemons and end with the work, so none is alive when a process forks and none delays its exit.

    Raises:
        BaseException: the first exception that a job raised, once the jobs that had started have ended.
    """
    waiting = list(jobs)
    # Workers of a machine want the same shards at the same time. In different orders, they share the downloads.
    random.SystemRandom().shuffle(waiting)
    errors: list[BaseException] = []

    def work() -> None:
        while waiting and not errors:
            try:
                job = waiting.pop()
            except IndexError:
                return
            try:
                job()
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(limit, len(waiting)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        waiting.clear()  # after Ctrl-C, start no more jobs
    if errors:
        raise errors[0]
