"""Compose the command that continues this run, as the user typed it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path


def read_parent_command() -> list[str]:
    """Return the words of the command line of the process that started this one; empty where the system hides it."""
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    except OSError:
        return []
    return words[:-1] if words and not words[-1] else words


def compose_resume_command(argv: Sequence[str], parent: Sequence[str]) -> str:
    """Return the command that continues a run: the launcher's, where one started it, with ``--resume latest``.

    Args:
        argv: this program's arguments, without its name.
        parent: the words of the parent's command line; it is a launcher's where it ends with ``argv``.
    """
    arguments = list(argv)
    launcher = list(parent[: len(parent) - len(arguments)]) if arguments else []
    if launcher and list(parent[len(launcher) :]) == arguments:
        program = _shorten(launcher)
    elif Path(sys.argv[0]).name == "train.py":
        program = ["python", "-m", "bimodal_cl.train"]
    else:
        program = [Path(sys.argv[0]).name]
    return shlex.join([*program, *_without_resume(arguments), "--resume", "latest"])


def _shorten(words: list[str]) -> list[str]:
    """Write ``/.../python /.../accelerate launch`` as a user does."""
    if Path(words[0]).name.startswith("python"):
        if words[1:2] == ["-m"]:
            return ["python", *words[1:]]
        words = words[1:]
    return [Path(words[0]).name, *words[1:]]


def _without_resume(arguments: list[str]) -> list[str]:
    kept, skipped = [], False
    for word in arguments:
        if skipped:
            skipped = False
        elif word == "--resume":
            skipped = True
        elif not word.startswith("--resume="):
            kept.append(word)
    return kept
