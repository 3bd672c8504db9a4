"""Jobs in threads."""

from __future__ import annotations

import time

import pytest

from bimodal_cl.data.storage.concurrency import run_concurrently
from bimodal_cl.errors import UserError


def test_jobs_run_at_the_same_time_and_the_first_error_is_raised() -> None:
    running, most, done = [0], [0], []

    def work(number: int) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.02)
        running[0] -= 1
        done.append(number)

    run_concurrently([lambda n=n: work(n) for n in range(12)], 4)  # type: ignore[misc]
    assert sorted(done) == list(range(12)) and most[0] == 4

    def fail() -> None:
        raise UserError("one")

    with pytest.raises(UserError, match="one"):
        run_concurrently([fail], 4)
    run_concurrently([], 4)
