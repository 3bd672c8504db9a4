"""What a refusal looks like to a user: one line that names what is wrong, and exit status 2."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import pytest

from bimodal_cl.errors import UserError


@contextlib.contextmanager
def refused(match: str) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """Expect a ``UserError`` of one line that matches a pattern."""
    with pytest.raises(UserError, match=match) as refusal:
        yield refusal
    assert "\n" not in str(refusal.value)


def read_mistake(capsys: pytest.CaptureFixture[str], main: Callable[[Sequence[str]], int], *argv: object) -> str:
    """Run a command that the user got wrong; return the only line that it prints, which is on stderr."""
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and captured.err.startswith("error: "), captured
    return captured.err.strip()
