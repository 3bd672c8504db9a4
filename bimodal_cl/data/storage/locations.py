"""Tell URLs, commands and paths apart, and name them in messages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

PIPE = "pipe:"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::)")
_CHAINED = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_NUMBERED = re.compile(r"(.*?)([0-9]+)([^0-9]*)", re.DOTALL)  # the last number of a name


def is_remote(location: str) -> bool:
    """Return whether a location is a URL (``https://``, ``s3://``, ``memory://``, ...) or a ``pipe:``, not a path."""
    return is_pipe(location) or _SCHEME.match(location) is not None


def is_pipe(location: str) -> bool:
    """Return whether a location is ``pipe:COMMAND``: a command, run only if allowed, whose output is the shard."""
    return location.lower().startswith(PIPE)


def redact(location: str) -> str:
    """Return a location for messages, without the secrets of a URL: user, password and signed query."""
    if is_pipe(location):
        return location
    return "::".join(_redact_url(url) for url in _CHAINED.split(location))


def _redact_url(url: str) -> str:
    """Remove the secrets of one URL, without the standard library, which raises if a URL is malformed."""
    scheme, found, rest = url.partition("://")
    if not found:
        return url
    rest, asked, _ = rest.partition("#")[0].partition("?")
    server, slash, path = rest.partition("/")
    return f"{scheme}://{server.rpartition('@')[2]}{slash}{path}{'?...' if asked else ''}"


def base_name(location: str) -> str:
    """Return the file name at the end of a location; for a command, that of its last word."""
    words = location.split() if is_pipe(location) else []
    path = words[-1] if words else location.partition("#")[0].partition("?")[0]
    return PurePosixPath(path).name


def join_locations(locations: Iterable[str]) -> list[str]:
    """Shorten a list of shards to few patterns: consecutive numbers become one such as ``{00000..00099}``.

    The patterns are those of ``bimodal-prep index``, which lists the same shards for them.
    """
    numbers: dict[tuple[str, str], list[str]] = {}
    for location in locations:
        match = _NUMBERED.fullmatch(location)
        before, number, after = match.groups() if match else (location, "", "")
        numbers.setdefault((before, after), []).append(number)
    patterns = []
    for (before, after), found in numbers.items():
        runs: list[list[str]] = []
        for number in sorted(found, key=lambda number: (len(number), number)):
            if runs and _follows(runs[-1][-1], number):
                runs[-1].append(number)
            else:
                runs.append([number])
        patterns += [before + (run[0] if len(run) == 1 else f"{{{run[0]}..{run[-1]}}}") + after for run in runs]
    return patterns


def _follows(before: str, number: str) -> bool:
    """Return whether a number is the next one, written in the same way."""
    plain = len(before) == len(number) or not before.startswith("0")
    return plain and bool(before) and int(number) == int(before) + 1
