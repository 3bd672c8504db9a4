"""Expand patterns that name shards (braces, globs, folders), on this machine or on a server."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from bimodal_cl.data.storage.locations import is_pipe, is_remote, redact
from bimodal_cl.errors import UserError
from bimodal_cl.files.natural_sort import natural_sort_key
from bimodal_cl.files.tar_files import SHARD_EXTENSION, list_tars

from ..input_paths import suggest_path

_FILE_SCHEMES = ("file://", "local://")
_BRACES = re.compile(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}")  # the innermost ones
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)(?:\.\.([0-9]+))?")
_MAX_EXPANSION = 1_000_000


def expand_locations(patterns: Iterable[str], allow_pipe: bool = False) -> list[str]:
    """List the shards that some patterns name, each once and in natural sort order, whatever the order of patterns.

    A pattern is a tar, a folder (see :func:`~bimodal_cl.files.tar_files.list_tars`), a glob, a URL of any of these, or
    a ``pipe:COMMAND``; each may have braces: ``{00000..00099}``, ``{0..90..10}``, ``{train,val}``. The URL of a folder
    ends with ``/``, or its server is asked whether it is one. A name with braces or stars that exists on this machine
    is taken literally.

    Args:
        patterns: at least one.
        allow_pipe: accept ``pipe:`` patterns, whose commands will be run.

    Raises:
        UserError: a pattern names nothing, or is a ``pipe:`` that is not allowed, or its server cannot be asked.
    """
    found: dict[str, str] = {}
    for pattern in patterns:
        for prefix in _FILE_SCHEMES:
            pattern = pattern.removeprefix(prefix)
        if is_pipe(pattern) and not allow_pipe:
            raise UserError(f"{pattern}: would run that command; if you trust its author, give --allow-pipe")
        whole = not is_remote(pattern) and Path(pattern).exists()
        for name in (pattern,) if whole else expand_braces(pattern):
            for location in _list_one(name):
                found.setdefault(_identity(location), location)
    return sorted(found.values(), key=natural_sort_key)


def _identity(location: str) -> str:
    """Return a value that is equal for two names of one shard."""
    if is_remote(location):
        return location.replace(":///", "://")
    return os.path.abspath(location)  # noqa: PTH100  (`resolve` would take links to one file for that file)


def expand_braces(pattern: str) -> Iterator[str]:
    """Yield what the braces of a pattern stand for, as in a shell: lists, and ranges of numbers, zero-padded.

    Raises:
        UserError: there are more than a million names.
    """
    waiting, count = [pattern], 0
    while waiting:
        text = waiting.pop()
        braces = _BRACES.search(text)
        if braces is None:
            count += 1
            if count > _MAX_EXPANSION:
                raise UserError(f"{redact(pattern)}: stands for more than {_MAX_EXPANSION:,} shards")
            yield text
            continue
        before, after = text[: braces.start()], text[braces.end() :]
        waiting += [before + choice + after for choice in reversed(_choices(pattern, braces[1]))]


def _choices(pattern: str, inside: str) -> list[str]:
    """Return what the text inside one pair of braces stands for."""
    numbers = _RANGE.fullmatch(inside)
    if numbers is None:
        return inside.split(",")
    first, last = int(numbers[1]), int(numbers[2])
    step = max(int(numbers[3] or 1), 1)
    if abs(last - first) // step >= _MAX_EXPANSION:
        raise UserError(f"{redact(pattern)}: stands for more than {_MAX_EXPANSION:,} shards")
    padded = any(len(text) > 1 and text[0] == "0" for text in numbers.group(1, 2))
    width = max(len(numbers[1]), len(numbers[2])) if padded else 0
    span = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
    return [f"{number:0{width}d}" for number in span]


def _list_one(name: str) -> list[str]:
    """List the shards of a pattern without braces."""
    if is_pipe(name):
        return [name]
    if is_remote(name):
        return _list_remote(name)
    path = Path(name)
    if path.is_dir():
        return list(map(str, list_tars(path)))
    if path.exists():
        return [name]
    if not glob.has_magic(name):
        kind = "file" if path.suffix == SHARD_EXTENSION else "folder"
        raise UserError(f"no such {kind}: {name}{suggest_path(path)}")
    found = glob.glob(name, recursive=True)  # noqa: PTH207  (that one needs a folder and a relative pattern)
    matches = [match for match in found if not Path(match).is_dir()]
    if not matches:
        raise UserError(f"{name}: matches no file")
    return matches


def _list_remote(url: str) -> list[str]:
    """List the shards of a URL: the URL itself, or what its server lists for a glob or a folder."""
    if url.lower().startswith(("http://", "https://")):
        if "*" in url.partition("?")[0] or url.endswith("/"):
            raise UserError(
                f"{redact(url)}: HTTP servers list no files; name the shards with braces, such as {{00000..00099}}"
            )
        return [url]
    if url.endswith(SHARD_EXTENSION) and not glob.has_magic(url):
        return [url]
    from bimodal_cl.data.storage.sources.file_system import (
        open_file_system,  # imports fsspec, which `--help` does not need
    )

    files, path = open_file_system(url)
    try:
        if not glob.has_magic(path):
            if not url.endswith("/") and not files.isdir(path):
                return [url]
            path = f"{path.rstrip('/')}/*{SHARD_EXTENSION}"
        found = [files.unstrip_protocol(match) for match in files.glob(path)]
    except Exception as error:  # each of a dozen libraries raises its own
        raise UserError(f"{redact(url)}: cannot be listed: {' '.join(str(error).split())}") from None
    if not found:
        raise UserError(f"{redact(url)}: no shard there")
    return found
