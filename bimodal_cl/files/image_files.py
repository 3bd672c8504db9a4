"""List the images of a folder by their names, and count all other files by extension."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath

from bimodal_cl.errors import UserError
from bimodal_cl.files.image_formats import IMAGE_EXTENSIONS

HIDDEN, NO_ENDING = "hidden", "without an ending"
# Files that operating systems create, besides those whose names begin with a dot.
_SYSTEM_NAMES = {"thumbs.db", "desktop.ini", "__macosx"}
_MAX_ENDINGS = 12
_IMAGE_MARKS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"RIFF")


def ending_of(name: str) -> str:
    """Return the ending by which a file is counted: lower case with its dot, ``HIDDEN`` or ``NO_ENDING``."""
    path = PurePosixPath(name)
    if any(part.startswith(".") or part.lower() in _SYSTEM_NAMES for part in path.parts):
        return HIDDEN
    return path.suffix.lower() or NO_ENDING


def list_images(folder: Path) -> tuple[list[Path], list[Path]]:
    """List the files of a folder and its sub-folders, linked ones included: images by their names, and all others.

    Raises:
        UserError: a folder cannot be read.
    """
    images: list[Path] = []
    others: list[Path] = []
    seen: set[str] = set()  # a link may lead to a folder above it
    for root, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            is_image = ending_of(path.relative_to(folder).as_posix()) in IMAGE_EXTENSIONS
            (images if is_image else others).append(path)
    return images, others


def count_endings(paths: Collection[Path], folder: Path) -> Counter[str]:
    """Count files of a folder by ending; unknown endings of images are marked, as in ``.jpg_large (images)``."""
    counts: Counter[str] = Counter()
    for path in paths:
        ending = ending_of(path.relative_to(folder).as_posix())
        is_image = ending not in (HIDDEN, *IMAGE_EXTENSIONS) and _looks_like_image(path)
        counts[f"{ending} (images)" if is_image else ending] += 1
    return counts


def describe_endings(counts: Mapping[str, int]) -> str:
    """Return a text of counts, the most frequent first: ``3 .heic, 1 without an ending, 2 hidden``."""
    listed = sorted(counts.items(), key=lambda item: (item[0] == HIDDEN, -item[1], item[0]))
    shown = [f"{count:,} {ending}" for ending, count in listed[:_MAX_ENDINGS] if count]
    rest = sum(count for _, count in listed[_MAX_ENDINGS:])
    return ", ".join([*shown, *([f"{rest:,} of {len(listed) - _MAX_ENDINGS:,} other endings"] if rest else [])])


def _looks_like_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            begin = file.read(12)
    except OSError:
        return False
    return begin.startswith(_IMAGE_MARKS) and (begin[:4] != b"RIFF" or begin[8:] == b"WEBP")


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be read: {error.strerror}")
