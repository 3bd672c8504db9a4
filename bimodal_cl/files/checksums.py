"""Write and verify the SHA-256 of every file of a folder, in the format of ``sha256sum``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from bimodal_cl.files.text_files import read_text

CHECKSUMS_FILE = "SHA256SUMS"
_BLOCK = 1 << 20


def hash_files(*paths: Path) -> str:
    """Return the SHA-256 of the contents of files, one after another, in hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def write_checksums(folder: Path) -> None:
    """Write ``SHA256SUMS`` of all files below a folder; ``sha256sum --check SHA256SUMS`` verifies them, too."""
    lines = [f"{hash_files(path)}  {path.relative_to(folder).as_posix()}\n" for path in _list_files(folder)]
    (folder / CHECKSUMS_FILE).write_text("".join(lines), encoding="utf-8")


def find_damage(folder: Path) -> str | None:
    """Say which file of a folder differs from its checksum, or is missing; None where all are whole.

    A folder without checksums is taken to be whole. Files that have no checksum are not looked at.
    """
    path = folder / CHECKSUMS_FILE
    if not path.is_file():
        return None
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        digest, space, name = line.partition("  ")
        if not space or len(digest) != 64:
            return f"{CHECKSUMS_FILE}: line {number} is not a checksum"
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if hash_files(file) != digest:
            return f"{name} is damaged (its SHA-256 is not that of {CHECKSUMS_FILE})"
    return None


def _list_files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != CHECKSUMS_FILE)
