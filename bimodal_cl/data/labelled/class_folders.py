"""Find the class folders of a data set, and class names in their names, as public data sets number and nest them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from bimodal_cl.files.image_files import HIDDEN, ending_of
from bimodal_cl.files.image_formats import IMAGE_EXTENSIONS

# CUB's 001.Black_footed_Albatross, Stanford Dogs' n02085620-Chihuahua.
_NUMBERED = re.compile(r"([0-9]+|n[0-9]{8})[._ -]+(.*[^\W\d_].*)")


def find_class_folders(root: Path) -> tuple[list[str], list[str]]:
    """Find the class folders below a folder.

    They are its sub-folders, as for torchvision's ``ImageFolder``, with all images below each. If the name of every
    sub-folder is a letter, as in SUN397 (``a/abbey``, ``c/church/indoor``), the folders that hold images are the
    classes.

    Returns:
        The folders, relative to ``root`` with ``/``, and notes to show to the user.
    """
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and ending_of(entry.name) != HIDDEN)
    if not folders or any(_holds_images(root / folder) for folder in folders):
        return folders, []
    inner = sorted(
        path.relative_to(root).as_posix()
        for folder in folders
        for path in (root / folder).rglob("*")
        if path.is_dir() and ending_of(path.name) != HIDDEN and _holds_images(path)
    )
    if all(len(folder) == 1 and folder.isalpha() for folder in folders) and inner:
        return inner, [f"folders are letters: the classes are the {len(inner)} folders below them, such as {inner[0]}"]
    if len(inner) > len(folders):
        return folders, [
            f"warning: the images of all {len(folders)} classes are in {len(inner)} sub-folders, such as {inner[0]}; "
            "if those are the classes, move them all to one level"
        ]
    return folders, []


def names_from_folders(folders: Sequence[str], what: str = "folder") -> tuple[list[str], list[str]]:
    """Derive class names from the names of folders, or of whatever else labels images (``what``, for messages).

    Underscores and slashes become spaces. Leading numbers and WordNet ids are removed if every folder has one, all
    different, in front of a name.

    Returns:
        The names in the order of the folders, and a note to show to the user if numbers were removed.
    """
    names = [re.sub(r"^\w/", "", folder) for folder in folders]
    matches = [_NUMBERED.fullmatch(name) for name in names]
    notes = []
    if len(folders) > 1 and all(matches) and len({match[1] for match in matches if match}) == len(folders):
        names = [match[2] for match in matches if match]
        shown = ", ".join(
            f"{folder} = '{_spaced(name)}'" for folder, name in list(zip(folders, names, strict=True))[:3]
        )
        notes = [f"{what} names begin with numbers, which are not part of the class names: {shown}, ..."]
    return [_spaced(name) for name in names], notes


def _spaced(name: str) -> str:
    return re.sub(r"[_/]", " ", unicodedata.normalize("NFC", name))


def _holds_images(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_EXTENSIONS for path in folder.iterdir() if not path.name.startswith("."))
