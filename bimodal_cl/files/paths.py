"""Paths as people write them: ``~``, ``~user``, ``$NAME`` and ``${NAME}`` stand for what a shell takes them for.

A shell replaces them only where they are unquoted and not in a YAML file, so every path of a config and of a command
goes through here; none of them makes a folder called ``~``.
"""

from __future__ import annotations

import os
import re

from bimodal_cl.errors import UserError

_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")
_COMMAND = "pipe:"  # a shell of its own runs what follows
_LOCAL_FOLDER = "local-dir:"  # what open_clip writes before a folder with a model


def expand_path(text: str) -> str:
    """Replace ``~`` at the beginning and variables anywhere by what they stand for.

    A ``pipe:`` location stays as it is, and so does a path with a ``$`` that exists under just that name.

    Args:
        text: a path, a URL, or a name that is neither.

    Raises:
        UserError: no path at all, as from ``"$NAME"`` with nothing in it (a ``Path`` would make the current folder of
            it); a variable that is not set, or a user who does not exist; named in the message.
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
