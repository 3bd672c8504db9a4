"""Load and save the manifest of a data set, which determines ids, table sizes and the length of an epoch."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from bimodal_cl.data.shards.faults import SHARD_KINDS
from bimodal_cl.data.storage.locations import is_pipe, is_remote, join_locations, redact
from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.atomic import open_atomically
from bimodal_cl.files.text_files import read_text

MANIFEST_NAME = "manifest.json"
VERSION = 1

CaptionsMode = Literal["lines", "whole"]
CAPTIONS_MODES: tuple[CaptionsMode, ...] = ("lines", "whole")
DamagedRule = Literal["refuse", "keep"]

_MAX_PATTERNS = 5  # names of shards in a message
_KEYS = ("version", "captions", "shards", "num_images", "num_texts", "faults")
_SHARD_KEYS = ("name", "num_images", "num_texts", "bytes", "sha256")


@dataclass(frozen=True)
class Shard:
    """One tar of the data set.

    Args:
        name: file name relative to the manifest's folder, with ``/`` between folders; or an absolute path, or a URL.
        num_images: images of the shard, one per row.
        num_texts: captions of all rows.
        bytes: size of the file.
        sha256: hexadecimal digest of the file; None if it was not computed.
    """

    name: str
    num_images: int
    num_texts: int
    bytes: int
    sha256: str | None = None


@dataclass(frozen=True)
class Manifest:
    """The shards of a data set, in the order that assigns an id to every image and caption.

    ``image_id`` = images in earlier shards + row in its shard; ``text_id`` = captions in earlier shards + captions
    before it in its shard.

    Args:
        folder: of ``manifest.json`` and of the shards with relative names.
        captions: ``"lines"`` (each non-empty line of a ``.txt`` is a caption) or ``"whole"`` (the text is one caption).
        shards: in the order of ids.
        faults: counts of ``SHARD_KINDS`` that were found while the shards were indexed; only those that occurred.
    """

    folder: Path
    captions: CaptionsMode
    shards: tuple[Shard, ...]
    faults: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def num_images(self) -> int:
        """Images of all shards."""
        return sum(shard.num_images for shard in self.shards)

    @property
    def num_texts(self) -> int:
        """Captions of all shards."""
        return sum(shard.num_texts for shard in self.shards)

    @cached_property
    def image_offsets(self) -> np.ndarray:
        """The first ``image_id`` of every shard, and the total: int64 ``[num_shards + 1]``."""
        return _cumulative([shard.num_images for shard in self.shards])

    @cached_property
    def text_offsets(self) -> np.ndarray:
        """The first ``text_id`` of every shard, and the total: int64 ``[num_shards + 1]``."""
        return _cumulative([shard.num_texts for shard in self.shards])

    @property
    def damaged(self) -> DamagedRule:
        """The rule to index the shards by: "keep" if a damaged one was accepted, so that its rows stay the same."""
        return "keep" if {"truncated", "garbage"} & set(self.faults) else "refuse"

    @property
    def index_command(self) -> str:
        """The command, without secrets, that indexes the shards as they are now; for messages."""
        return _index_command(self, self.damaged)

    def location(self, shard: int) -> str:
        """Return where shard number ``shard`` is: a path, or a URL."""
        name = self.shards[shard].name
        return name if is_remote(name) else str(self.folder / name)

    @classmethod
    def load(cls, folder: str | Path) -> Manifest:
        """Load ``folder/manifest.json`` and check the size of every local shard, without opening shards.

        Raises:
            UserError: the folder or the manifest is missing or unreadable; the manifest has unknown keys, another
                version or wrong sums; or a shard, which the message names, is missing or has another size.
        """
        folder = Path(folder)
        manifest = cls._parse(folder, _read_json(folder))
        for shard in manifest.shards:
            if not is_remote(shard.name):
                _require_size(manifest, shard)
        return manifest

    @classmethod
    def _parse(cls, folder: Path, content: dict[str, Any]) -> Manifest:
        path = folder / MANIFEST_NAME
        # The version is checked first, because another version may have other keys.
        if content.get("version") != VERSION:
            raise UserError(f"{path}: version {content.get('version')!r} is not {VERSION}, the one this program reads")
        _require_keys(path, "", content, _KEYS, optional=("faults",))
        captions = content["captions"]
        if captions not in CAPTIONS_MODES:
            raise UserError(f"{path}: captions {captions!r}{did_you_mean(str(captions), CAPTIONS_MODES)}")
        if not isinstance(content["shards"], list):
            raise UserError(f"{path}: shards must be a list, got {type(content['shards']).__name__}")
        shards = tuple(_parse_shard(path, n, s) for n, s in enumerate(content["shards"]))
        manifest = cls(folder, captions, shards, _parse_faults(path, content.get("faults", {})))
        for key, found in (("num_images", manifest.num_images), ("num_texts", manifest.num_texts)):
            if content[key] != found:
                raise UserError(f"{path}: {key} is {content[key]!r} but its shards add up to {found}")
        names = [shard.name for shard in manifest.shards]
        if len(set(names)) < len(names):
            twice = next(name for n, name in enumerate(names) if name in names[:n])
            raise UserError(f"{path}: shard {twice} is listed twice")
        return manifest

    def save(self) -> Path:
        """Write ``folder/manifest.json`` by an atomic rename, and return its path."""
        content: dict[str, object] = {
            "version": VERSION,
            "captions": self.captions,
            "shards": [{k: getattr(s, k) for k in _SHARD_KEYS if getattr(s, k) is not None} for s in self.shards],
            "num_images": self.num_images,
            "num_texts": self.num_texts,
        }
        if self.faults:
            content["faults"] = dict(sorted(self.faults.items()))
        path = self.folder / MANIFEST_NAME
        with open_atomically(path) as file:
            file.write(json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")
        return path


def _cumulative(counts: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def _read_json(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST_NAME
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of shards")
    try:
        content = json.loads(read_text(path))
    except FileNotFoundError:
        hint = (
            f"write one with `bimodal-prep index {folder}`" if any(folder.glob("*.tar")) else "it holds no .tar either"
        )
        raise UserError(f"{folder}: no {MANIFEST_NAME}; {hint}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold an object, got {type(content).__name__}")
    return content


def _require_keys(
    path: Path, where: str, content: dict[str, Any], keys: Sequence[str], optional: Sequence[str]
) -> None:
    for key in content:
        if key not in keys:
            raise UserError(f"{path}: unknown key '{where}{key}'{did_you_mean(key, keys)}")
    for key in keys:
        if key not in content and key not in optional:
            raise UserError(f"{path}: key '{where}{key}' is missing")


def _parse_shard(path: Path, number: int, content: object) -> Shard:
    where = f"shards[{number}]"
    if not isinstance(content, dict):
        raise UserError(f"{path}: {where} must be an object, got {type(content).__name__}")
    _require_keys(path, f"{where}.", content, _SHARD_KEYS, optional=("sha256",))
    name = content["name"]
    if not isinstance(name, str) or not name or (not _is_elsewhere(name) and ".." in PurePosixPath(name).parts):
        raise UserError(f"{path}: {where}.name must be a file name inside the folder, got {name!r}")
    for key in ("num_images", "num_texts", "bytes"):
        if type(content[key]) is not int or content[key] < 0:
            raise UserError(f"{path}: {where}.{key} must be a whole number >= 0, got {content[key]!r}")
    digest = content.get("sha256")
    if digest is not None and not isinstance(digest, str):
        raise UserError(f"{path}: {where}.sha256 must be text, got {digest!r}")
    return Shard(**content)


def _is_elsewhere(name: str) -> bool:
    return is_remote(name) or Path(name).is_absolute()


def _parse_faults(path: Path, content: object) -> dict[str, int]:
    if not isinstance(content, dict):
        raise UserError(f"{path}: faults must be an object, got {type(content).__name__}")
    for kind, count in content.items():
        if kind not in SHARD_KINDS:
            raise UserError(f"{path}: unknown kind 'faults.{kind}'{did_you_mean(kind, SHARD_KINDS)}")
        if type(count) is not int or count < 1:
            raise UserError(f"{path}: faults.{kind} must be a whole number >= 1, got {count!r}")
    return content


def _index_command(manifest: Manifest, damaged: DamagedRule) -> str:
    folder, names = str(manifest.folder), [shard.name for shard in manifest.shards]
    words, flags = [folder], []
    if any(is_remote(name) or "/" in name for name in names):
        words = join_locations(redact(manifest.location(shard)) for shard in range(len(names)))
        flags = ["--to", shlex.quote(folder)]
    shards = [shlex.quote(word) for word in words[:_MAX_PATTERNS]]
    more = ["..."] if len(words) > _MAX_PATTERNS else []
    if any(map(is_pipe, names)):
        flags.append("--allow-pipe")
    flags += ["--overwrite", *(["--damaged", "keep"] if damaged == "keep" else [])]
    return " ".join(("bimodal-prep index", *shards, *more, *flags))


def _require_size(manifest: Manifest, shard: Shard) -> None:
    folder = manifest.folder
    try:
        size = (folder / shard.name).stat().st_size
    except OSError as error:
        raise UserError(
            f"{folder}: shard {shard.name} is in the manifest but cannot be found: {error.strerror}"
        ) from None
    if size != shard.bytes:
        what = "truncated" if size < shard.bytes else "changed"
        damaged = "keep" if size < shard.bytes else manifest.damaged
        raise UserError(
            f"{folder}: shard {shard.name} holds {size} bytes but the manifest says {shard.bytes}: it is {what}; "
            f"`{_index_command(manifest, damaged)}` indexes it as it is now"
        )
