"""Fixtures of the data preparation tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_prep.cli import main


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that a user's mistake prints, after what was noted on the way."""
        assert self.status == 2, (self.status, self.err)
        line = self.err.splitlines()[-1]
        assert line.startswith("error: ") and "Traceback" not in self.err
        return line.removeprefix("error: ")


@pytest.fixture
def prep(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run ``bimodal-prep`` with some arguments."""

    def run(*arguments: str | int | Path) -> Outcome:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run
