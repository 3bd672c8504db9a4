"""Expand ``~``, ``~user``, ``$NAME`` and ``${NAME}`` in paths, as a shell does.

A shell expands them only if they are unquoted, and never in a YAML file, so every path of a config and of a command is
expanded here, and none creates a folder called ``~``.
"""

from __future__ import annotations

import os
import re

from bimodal_cl.errors import UserError

_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")
_COMMAND = "pipe:"  # a shell will expand and run what follows
_LOCAL_FOLDER = "local-dir:"  # open_clip's prefix of a folder with a model


def expand_path(text: str) -> str:
    """Expand ``~`` at the beginning and variables anywhere.

    A ``pipe:`` location is not changed, and neither is a path with a ``$`` that exists under exactly that name.

    Args:
        text: a path, a URL, or a name that is neither.

    Raises:
        UserError: the path is empty (``Path`` would take it for the current folder), or a variable is not set, or a
            user does not exist.
    """
    if not text.strip():
        raise UserError("the path is empty")
    if text.lower().startswith(_COMMAND):
        return text
    if text.startswith(_LOCAL_FOLDER):
        return _LOCAL_FOLDER + expand_path(text.removeprefix(_LOCAL_FOLDER))
    return _expand_home(text if "$" in text and os.path.lexists(text) else _VARIABLE.sub(_value, text))


def _value(match: re.Match[str]) -> str:
    name = match[1] or match[2]
    if name not in os.environ:
        raise UserError(f"the variable ${name} is not set")
    return os.environ[name]


def _expand_home(path: str) -> str:
    expanded = os.path.expanduser(path)  # noqa: PTH111  (a Path would lose the end of "folder/" and "s3://")
    if path.startswith("~") and expanded == path and not os.path.lexists(path):
        user = path.split("/")[0]
        raise UserError(f"there is no user whose home {user} could be; write ./{path} for a path of that name")
    return expanded
