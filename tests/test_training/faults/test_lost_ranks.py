"""A rank that is killed, or that hangs, ends the others with one line and within the timeout."""

import re
import signal
import time

import pytest

from tests.test_training.conftest import WITHOUT_DROPOUT
from tests.test_training.faults.signalled_runs import find_ranks, start_training, wait_for_step

LONG = {"train": {"num_epochs": None, "num_steps": 5000, "timeout_seconds": 5}, "model": WITHOUT_DROPOUT}


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (signal.SIGKILL, r"error: step \d+: another process has ended; its message says why"),
        (signal.SIGSTOP, r"error: step \d+: another process did not answer in time \(train.timeout_seconds\)"),
    ],
    ids=["killed", "hangs"],
)
def test_the_others_end(write_config, tmp_path, number, line):
    process = start_training(write_config("run", **LONG, data={"val": None}), 2)
    wait_for_step(process, tmp_path / "run", 5)
    ranks = find_ranks(process)
    started = time.monotonic()
    ranks[1].send_signal(number)
    try:
        ranks[0].wait(timeout=60)
    finally:
        if number == signal.SIGSTOP:
            ranks[1].kill()
    assert time.monotonic() - started < 40  # five seconds, and what a busy machine adds
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(re.findall(line, errors)) == 1
