"""Where shards are: paths of this machine or URLs, and the patterns that people name many of them with."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.image_files import describe_endings, ending_of
from bimodal_cl.files.natural_sort import natural_order

PIPE = "pipe:"
SHARD_EXTENSION = ".tar"
COMPRESSED_EXTENSIONS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".zip")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::)")
_CHAINED = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_FILE_SCHEMES = ("file://", "local://")
_BRACES = re.compile(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}")  # the innermost ones
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)(?:\.\.([0-9]+))?")
_NUMBERED = re.compile(r"(.*?)([0-9]+)([^0-9]*)", re.DOTALL)  # the last number of a name
_MAX_EXPANSION = 1_000_000
_MAX_NEIGHBOURS = 2000  # names to compare a mistyped one with; a folder can hold millions


def is_remote(location: str) -> bool:
    """Whether a location is a URL (``https://``, ``s3://``, ``memory://``, ...) or a ``pipe:``, not a path."""
    return is_pipe(location) or _SCHEME.match(location) is not None


def is_pipe(location: str) -> bool:
    """Whether a location is a command, ``pipe:COMMAND``, whose output is the shard: it runs only where allowed."""
    return location.lower().startswith(PIPE)


def name_of(location: str) -> str:
    """A location for messages: without what may be secret in a URL (user and password, signed query)."""
    if is_pipe(location):
        return location
    return "::".join(_without_secrets(url) for url in _CHAINED.split(location))


def _without_secrets(url: str) -> str:
    """By hand, because the standard library raises where a URL is malformed, which is what messages are for."""
    scheme, found, rest = url.partition("://")
    if not found:
        return url
    rest, asked, _ = rest.partition("#")[0].partition("?")
    server, slash, path = rest.partition("/")
    return f"{scheme}://{server.rpartition('@')[2]}{slash}{path}{'?...' if asked else ''}"


def expand_locations(patterns: Iterable[str], allow_pipe: bool = False) -> list[str]:
    """List the shards that some patterns name, each once, in natural order, however they were named.

    A pattern is a tar, a folder (see :func:`list_tars`), a glob, a URL of any of these, or a ``pipe:COMMAND``; each may
    have braces: ``{00000..00099}``, ``{0..90..10}``, ``{train,val}``. A folder of a URL ends with ``/`` or is found to
    be one by asking its server. What exists on this machine under a name with braces or stars is taken as it is.

    Args:
        patterns: at least one.
        allow_pipe: accept ``pipe:``, whose commands will be executed.

    Raises:
        UserError: a pattern names nothing, or is a ``pipe:`` that is not allowed, or its server cannot be asked.
    """
    found: dict[str, str] = {}
    for pattern in patterns:
        for prefix in _FILE_SCHEMES:
            pattern = pattern.removeprefix(prefix)
        if is_pipe(pattern) and not allow_pipe:
            raise UserError(f"{pattern}: would run that command; if you trust whoever wrote it, give --allow-pipe")
        whole = not is_remote(pattern) and Path(pattern).exists()
        for name in (pattern,) if whole else expand_braces(pattern):
            for location in _list_one(name):
                found.setdefault(_identity(location), location)
    return sorted(found.values(), key=natural_order)


def _identity(location: str) -> str:
    if is_remote(location):
        return location.replace(":///", "://")
    return os.path.abspath(location)  # noqa: PTH100  (`resolve` would take links to one file for that file)


def expand_braces(pattern: str) -> Iterator[str]:
    """Give what the braces of a pattern stand for, as a shell would: lists, and ranges of numbers, zero-padded.

    Raises:
        UserError: more than a million names.
    """
    waiting, count = [pattern], 0
    while waiting:
        text = waiting.pop()
        braces = _BRACES.search(text)
        if braces is None:
            count += 1
            if count > _MAX_EXPANSION:
                raise UserError(f"{name_of(pattern)}: stands for more than {_MAX_EXPANSION:,} shards")
            yield text
            continue
        before, after = text[: braces.start()], text[braces.end() :]
        waiting += [before + choice + after for choice in reversed(_choices(pattern, braces[1]))]


def _choices(pattern: str, inside: str) -> list[str]:
    numbers = _RANGE.fullmatch(inside)
    if numbers is None:
        return inside.split(",")
    first, last = int(numbers[1]), int(numbers[2])
    step = max(int(numbers[3] or 1), 1)
    if abs(last - first) // step >= _MAX_EXPANSION:
        raise UserError(f"{name_of(pattern)}: stands for more than {_MAX_EXPANSION:,} shards")
    padded = any(len(text) > 1 and text[0] == "0" for text in numbers.group(1, 2))
    width = max(len(numbers[1]), len(numbers[2])) if padded else 0
    span = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
    return [f"{number:0{width}d}" for number in span]


def join_locations(locations: Iterable[str]) -> list[str]:
    """Name shards by few patterns: those with numbers in a row by one such as ``{00000..00099}``.

    ``expand_locations`` lists the same shards for them.
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
    """Whether a number is the next one, written in the same way."""
    plain = len(before) == len(number) or not before.startswith("0")
    return plain and bool(before) and int(number) == int(before) + 1


def _list_one(name: str) -> list[str]:
    """The shards of a pattern without braces."""
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
    found = glob.glob(name, recursive=True)  # noqa: PTH207  (that one wants a folder and a relative pattern)
    matches = [match for match in found if not Path(match).is_dir()]
    if not matches:
        raise UserError(f"{name}: matches no file")
    return matches


def list_tars(folder: Path) -> list[Path]:
    """List the tars of a folder in natural order: its own, or where it has none those of its sub-folders.

    Raises:
        UserError: there is none; says what there is instead, by ending.
    """
    tars = _own_tars(folder) or _tars_below(folder)
    if not tars:
        there = Counter(_shard_ending(path.name) for path in folder.iterdir() if path.is_file())
        zipped = sum(there[ending] for ending in COMPRESSED_EXTENSIONS)
        hint = "; shards must be plain tars: unpack them" if zipped else ""
        holds = f": it holds {describe_endings(there)}" if there else ""
        raise UserError(f"no {SHARD_EXTENSION} in {folder}{holds}{hint}")
    return sorted(tars, key=lambda path: natural_order(path.relative_to(folder).as_posix()))


def count_other_shards(folder: Path) -> Counter[str]:
    """Count what may be shards of a folder too and is not among its :func:`list_tars`: compressed or in sub-folders."""
    found = Counter(_shard_ending(path.name) for path in folder.iterdir() if path.is_file())
    counts = Counter({ending: found[ending] for ending in COMPRESSED_EXTENSIONS if found[ending]})
    below = len(_tars_below(folder)) if _own_tars(folder) else 0
    if below:
        counts[f"{SHARD_EXTENSION} in sub-folders ({folder / '**' / f'*{SHARD_EXTENSION}'})"] = below
    return counts


def is_tar(path: Path) -> bool:
    """Whether a file of a folder is a shard by its name; ``._0.tar`` is not, which macOS writes beside ``0.tar``."""
    return path.suffix.lower() == SHARD_EXTENSION and not path.name.startswith(".")


def _own_tars(folder: Path) -> list[Path]:
    return list(filter(is_tar, folder.iterdir()))


def _tars_below(folder: Path) -> list[Path]:
    paths = filter(is_tar, folder.glob("*/**/*.*"))
    return [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _shard_ending(name: str) -> str:
    return next((ending for ending in COMPRESSED_EXTENSIONS if name.lower().endswith(ending)), ending_of(name))


def suggest_path(path: Path, folders: bool | None = None) -> str:
    """Name the nearest neighbour of the first part of a path that is missing, as :func:`did_you_mean` does.

    Args:
        path: may not exist; "" where it does.
        folders: whether it is meant to be a folder, or a file; None: either.
    """
    if path.exists():
        return ""
    while path.parent != path and not path.parent.is_dir():
        path, folders = path.parent, folders if folders is None else True
    try:
        beside = list(islice(path.parent.iterdir(), _MAX_NEIGHBOURS))
    except OSError:
        return ""
    names = [entry.name for entry in beside if folders is None or entry.is_dir() == folders]
    return did_you_mean(path.name, [name for name in names if not name.startswith(".")])


def _list_remote(url: str) -> list[str]:
    """The shards of a URL: itself, or what its server lists for a glob or a folder."""
    if url.lower().startswith(("http://", "https://")):
        if "*" in url.partition("?")[0] or url.endswith("/"):
            raise UserError(
                f"{name_of(url)}: HTTP servers list no files; name the shards with braces, such as {{00000..00099}}"
            )
        return [url]
    if url.endswith(SHARD_EXTENSION) and not glob.has_magic(url):
        return [url]
    from bimodal_cl.data.storage.remote import open_file_system  # fsspec, which `--help` need not load

    files, path = open_file_system(url)
    try:
        if not glob.has_magic(path):
            if not url.endswith("/") and not files.isdir(path):
                return [url]
            path = f"{path.rstrip('/')}/*{SHARD_EXTENSION}"
        found = [files.unstrip_protocol(match) for match in files.glob(path)]
    except Exception as error:  # of a dozen libraries
        raise UserError(f"{name_of(url)}: cannot be listed: {' '.join(str(error).split())}") from None
    if not found:
        raise UserError(f"{name_of(url)}: no shard there")
    return found
