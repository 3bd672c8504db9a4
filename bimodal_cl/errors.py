"""The errors that commands print as one line, and the nearest valid choice that their messages name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# Control sequences of a terminal, and other characters that do not print.
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|(?![\t\n\r\v\f])[\x00-\x1f\x7f-\x9f]")


class UserError(ValueError):
    """A mistake of the user: the message is one line that says what, where, and the nearest valid choice.

    Commands print it without a traceback and exit with status 2.
    """


class SettingRefused(UserError):
    """A setting of a run that cannot do what it says; every process of a machine raises it."""


class NoSuchSplit(UserError):
    """The data can be read, but do not have the split that was asked for."""


class RunStopped(RuntimeError):
    """A run that had to stop without a mistake of the user: the message is one line with what, where and how to go on.

    Commands print it without a traceback and exit with status 1.
    """


class ServerFailed(OSError):
    """A server or a command that failed too often. The message is one line; trying again later may help."""


def nearest(name: str, choices: Iterable[str], similarity: float = 0.6) -> str | None:
    """Return the choice most like a name, or None; case is ignored, and ``-``, ``_``, ``/`` and spaces are alike.

    Args:
        name: what the user wrote.
        choices: the valid names.
        similarity: least similarity, from 0 to 1 (equal).
    """
    plain = {_plain(choice): choice for choice in choices}
    near = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=similarity)
    return plain[near[0]] if near else None


def _plain(name: str) -> str:
    return re.sub(r"[-/ ]", "_", name.casefold())


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"``, the choices themselves where none is near, or ``""`` where there are none."""
    known = [str(choice) for choice in choices]
    near = nearest(name, known)
    if near is not None:
        return f"; did you mean '{near}'?"
    if not known:
        return ""
    shown = ", ".join(sorted(known)[:20])
    return f"; valid: {shown}" + (", ..." if len(known) > 20 else "")


def one_line(error: BaseException) -> str:
    """Return an error's text to quote in our own message: one line, at most 300 characters, no control characters."""
    text = " ".join(_CONTROL.sub("", str(error)).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
