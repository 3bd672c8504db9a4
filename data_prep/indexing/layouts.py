"""Recognise the program or data set that shards come from, by the first samples, and how it stores captions."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bimodal_cl.data.shards.manifest import CaptionsMode
from bimodal_cl.data.storage.locations import is_pipe
from bimodal_cl.files.image_formats import TEXT_EXTENSIONS

NUM_SHARDS = "nshards.txt"  # a file that CLIP_benchmark puts in the folder of its shards
_MEMBERS = 16  # members that are examined
_MAX_JSON = 2**20
_CAPTION_KEYS = ("caption", "TEXT", "text", "captions")
_LAION_KEYS = {"similarity", "punsafe", "pwatermark", "NSFW", "LICENSE", "AESTHETIC_SCORE", "aesthetic", "SAMPLE_ID"}


@dataclass(frozen=True)
class Layout:
    """The layout of a shard.

    Args:
        name: the program or data set.
        captions: how texts are split; None if the layout does not determine it.
        meaning: what it means for captions, for the summary.
        has_captions: whether images have texts.
    """

    name: str
    captions: CaptionsMode | None
    meaning: str
    has_captions: bool = True


@dataclass(frozen=True)
class _Beginning:
    """The first members of a shard: extensions in order, keys of the first JSON, and whether bimodal-prep wrote it."""

    extensions: list[str]
    json_keys: frozenset[str]
    is_ours: bool


def recognise_layout(path: Path, location: str, has_neighbour: Callable[[str], bool]) -> Layout | None:
    """Return the layout of a shard; None if it is unknown.

    Args:
        path: the shard, a local file.
        location: the shard's path or URL, whose name identifies some data sets.
        has_neighbour: tells whether the shard's folder has a file of some name.
    """
    begin = _look(path)
    if begin is None:
        return None
    has_text = any(extension in begin.extensions for extension in TEXT_EXTENSIONS)
    if ".cls" in begin.extensions and not has_text:
        return Layout(
            "CLIP_benchmark classification",
            None,
            "it has labels and no captions; `bimodal-eval zero-shot` evaluates on it",
            has_captions=False,
        )
    if not has_text:
        return _without_text(begin)
    if ".json" not in begin.extensions and has_neighbour(NUM_SHARDS):
        return Layout("CLIP_benchmark retrieval", "lines", "each line of a .txt is a caption")
    name = _name_writer(begin, location)
    if name == "bimodal-prep":
        return Layout(name, None, "each line of a .txt is a caption: without its manifest, give --captions lines")
    return None if name is None else Layout(name, "whole", "the whole text is one caption")


def _name_writer(begin: _Beginning, location: str) -> str | None:
    """Return the program or data set that shards of images with texts come from; None if unknown."""
    keys = begin.json_keys
    file = "" if is_pipe(location) else location.partition("?")[0].rpartition("/")[2]
    if file.startswith(("cc3m-", "cc12m-")):
        return "CC3M" if file.startswith("cc3m-") else "CC12M"
    if "uid" in keys and {"key", "url"} <= keys:
        return "DataComp"
    if keys & _LAION_KEYS:
        return "LAION"
    if {"key", "status"} <= keys:
        return "img2dataset"
    return "bimodal-prep" if begin.is_ours else None


def _without_text(begin: _Beginning) -> Layout | None:
    key = next((key for key in _CAPTION_KEYS if key in begin.json_keys), None)
    if key is None:
        return None
    return Layout(
        "captions in .json only",
        None,
        f"captions in .json ('{key}') are not read, only those in .txt, .caption or .text; "
        "`bimodal-prep write img2dataset` writes shards with .txt",
        has_captions=False,
    )


def _look(path: Path) -> _Beginning | None:
    extensions: list[str] = []
    json_keys: frozenset[str] = frozenset()
    is_ours = False
    try:
        with tarfile.open(path, "r:", encoding="utf-8", errors="backslashreplace") as tar:
            for info in islice(tar, _MEMBERS):
                extension = Path(info.name).suffix.lower()
                if not info.isfile() or Path(info.name).name.startswith("."):
                    continue
                if not extensions:
                    is_ours = _is_plain(path, info)
                extensions.append(extension)
                if extension == ".json" and not json_keys and info.size <= _MAX_JSON:
                    file = tar.extractfile(info)
                    content = json.loads(file.read()) if file is not None else None
                    json_keys = frozenset(content) if isinstance(content, dict) else frozenset()
    except (tarfile.TarError, EOFError, OSError, ValueError):
        pass  # the index reports damage; the members before it are enough
    return _Beginning(extensions, json_keys, is_ours) if extensions else None


def _is_plain(path: Path, info: tarfile.TarInfo) -> bool:
    """Return whether a member's header is in ustar format without time and owner, as bimodal-prep writes it."""
    with path.open("rb") as file:
        file.seek(info.offset + 257)
        magic = file.read(8)
    return magic == b"ustar\x0000" and not info.mtime and not info.uid and not info.uname
