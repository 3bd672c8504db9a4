"""Who wrote some shards, told from the first samples of one; what follows for their captions."""

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

NUM_SHARDS = "nshards.txt"  # CLIP_benchmark writes it beside its shards
_MEMBERS = 16  # members that are looked at
_MAX_JSON = 2**20
_CAPTION_KEYS = ("caption", "TEXT", "text", "captions")
_LAION_KEYS = {"similarity", "punsafe", "pwatermark", "NSFW", "LICENSE", "AESTHETIC_SCORE", "aesthetic", "SAMPLE_ID"}


@dataclass(frozen=True)
class Layout:
    """What a shard looks like.

    Args:
        name: whose layout it is.
        captions: how its texts are split; None where it does not tell.
        meaning: what follows, for people.
        has_captions: whether its images have texts beside them.
    """

    name: str
    captions: CaptionsMode | None
    meaning: str
    has_captions: bool = True


@dataclass(frozen=True)
class _Beginning:
    """The first members of a shard: extensions in order, the keys of the first JSON, and whether we wrote it."""

    extensions: list[str]
    json_keys: frozenset[str]
    is_ours: bool


def recognise_layout(path: Path, location: str, has_beside: Callable[[str], bool]) -> Layout | None:
    """Tell the layout of a shard; None where it is none that has a name.

    Args:
        path: the shard, a file.
        location: where it is, by which some are known.
        has_beside: whether a file of some name stands beside the shard.
    """
    begin = _look(path)
    if begin is None:
        return None
    has_text = any(extension in begin.extensions for extension in TEXT_EXTENSIONS)
    if ".cls" in begin.extensions and not has_text:
        return Layout(
            "CLIP_benchmark classification",
            None,
            "it has labels and no captions; `bimodal-eval zero-shot` scores it",
            has_captions=False,
        )
    if not has_text:
        return _without_text(begin)
    if ".json" not in begin.extensions and has_beside(NUM_SHARDS):
        return Layout("CLIP_benchmark retrieval", "lines", "a .txt holds a caption a line")
    name = _name_writer(begin, location)
    if name == "bimodal-prep":
        return Layout(name, None, "it writes a caption a line, so that --captions lines is right without its manifest")
    return None if name is None else Layout(name, "whole", "a .txt is one caption")


def _name_writer(begin: _Beginning, location: str) -> str | None:
    """Whose shards of images with texts these are."""
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
        f"its captions ('{key}') are not read, only those of a .txt, .caption or .text beside the image; "
        "`bimodal-prep write img2dataset` writes shards that have one",
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
        pass  # a damaged shard is the index's affair; what stands before tells enough
    return _Beginning(extensions, json_keys, is_ours) if extensions else None


def _is_plain(path: Path, info: tarfile.TarInfo) -> bool:
    """Whether a member's header is of ustar's format and names no time and no owner, as those that we write."""
    with path.open("rb") as file:
        file.seek(info.offset + 257)
        magic = file.read(8)
    return magic == b"ustar\x0000" and not info.mtime and not info.uid and not info.uname
