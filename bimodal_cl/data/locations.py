"""Where shards are: paths of this machine, or URLs that a storage fetches."""

from __future__ import annotations

import re

PIPE = "pipe:"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::)")


def is_remote(location: str) -> bool:
    """Whether a location is a URL (``https://``, ``s3://``, ``memory://``, ...) or a ``pipe:``, not a path."""
    return is_pipe(location) or _SCHEME.match(location) is not None


def is_pipe(location: str) -> bool:
    """Whether a location is a command, ``pipe:COMMAND``, whose output is the shard: it runs only where allowed."""
    return location.lower().startswith(PIPE)
