"""Run one command in several processes that a launcher has started: join them, let one speak, end them together.

Every process runs the whole command. The main process, rank 0, prints and writes. The process group is gloo's also on
GPUs: what evaluation exchanges is small, features and what belongs to them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path

from bimodal_cl.cli.exit_status import EXIT_USER_ERROR
from bimodal_cl.errors import RunStopped, UserError

# The main process may score for long while the others wait. One that has ended is noticed at once all the same.
_LONGEST_WAIT = timedelta(days=1)
_SECONDS_TO_SPEAK = 20.0  # until a process that keeps silent ends, in case the launcher does not end it
_STORE_TIMEOUT = timedelta(seconds=5)
_INTERRUPTED = 130


def count_processes() -> int:
    """Return how many processes the launcher has started for this command; 1 without a launcher."""
    number = os.environ.get("WORLD_SIZE", "")
    return int(number) if number.isdigit() and "RANK" in os.environ else 1


def is_main_process() -> bool:
    """Return whether this process prints and writes."""
    return count_processes() == 1 or os.environ["RANK"] == "0"


def local_rank() -> int:
    """Return the number of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) if count_processes() > 1 else 0


@contextmanager
def one_voice() -> Iterator[None]:
    """Discard the output of every process but the main one, and its mistakes, which the main process makes as well."""
    try:
        with _discarded_output():
            yield
    except UserError:
        if is_main_process():
            raise
        time.sleep(_SECONDS_TO_SPEAK)  # the launcher ends all processes when the first one ends
        raise SystemExit(EXIT_USER_ERROR) from None


@contextmanager
def joined_processes() -> Iterator[None]:
    """Join the processes of a command, so that they can gather features; with one process, do nothing.

    An error in one process ends all of them: the first one raises it, the others end in silence.

    Raises:
        RunStopped: another process has ended without a message.
    """
    if count_processes() == 1:
        yield
        return

    import torch.distributed as dist
    from accelerate import PartialState

    from bimodal_cl.distributed import explain_lost_peer

    PartialState(cpu=True, backend="gloo", timeout=_LONGEST_WAIT)
    try:
        with _discarded_output():
            yield
            dist.barrier()  # until the main process has scored: one that ends earlier would end it, too
    except BaseException as error:
        if not _is_first_to_report():
            raise SystemExit(_INTERRUPTED if isinstance(error, KeyboardInterrupt) else EXIT_USER_ERROR) from None
        if isinstance(error, RuntimeError) and (reason := explain_lost_peer(error)):
            raise RunStopped(reason) from None
        raise
    dist.destroy_process_group()


@contextmanager
def _discarded_output() -> Iterator[None]:
    """Discard what any process but the main one prints."""
    if is_main_process():
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def _is_first_to_report() -> bool:
    """Return True in the first of the processes that calls this: the others have nothing to add to its message."""
    import torch.distributed as dist

    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store = dist.TCPStore(*place, is_master=False, wait_for_workers=False, timeout=_STORE_TIMEOUT)
        return store.add(f"bimodal_cl/reported/{attempt}", 1) == 1
    except (RuntimeError, OSError):  # the process that kept the store has ended, and has said why
        return False
