"""Name classes, and match class folders with a file of names.

If the names of **all** class folders are whole numbers, the number is the class: folder ``10`` is the eleventh line of
a names file, even if other folders are missing. The numbers count from 1 only if they are exactly ``1`` to ``N`` and
the file has ``N`` lines. Other folders are matched with the lines by name if each of them (with underscores and hyphens
as spaces, in any case and Unicode form) is in the file exactly once. Otherwise they are matched in natural sort order
(``class2`` before ``class10``), which needs as many names as folders. ``notes`` always shows the result.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bimodal_cl.data.labelled.class_folders import names_from_folders
from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.natural_sort import natural_sort_key
from bimodal_cl.files.text_files import NotText, read_text

_WORDNET_ID = re.compile(r"n[0-9]{8}")
_SHOWN = 12
# What a line of a names file may begin or end with if it holds more than a name.
_NUMBER_FIRST = re.compile(r"([0-9]{1,9})(\s*[:.,;)|=\t]\s*|\s+)\S.*")
_NUMBER_LAST = re.compile(r".*\S\s*[\t,;]\s*([0-9]{1,9})")
_ID_FIRST = re.compile(rf"{_WORDNET_ID.pattern}[\s:,].*")


@dataclass(frozen=True)
class ClassNames:
    """The names of classes, and the classes of folders.

    Args:
        names: by class index.
        label_of_folder: the class index of every folder.
        notes: lines that tell the user how folders and names were matched.
    """

    names: list[str]
    label_of_folder: dict[str, int]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class NameList:
    """Names of classes, by class index, and where they come from, for messages."""

    names: list[str]
    origin: str


def read_name_list(path: Path) -> NameList:
    """Read names as :func:`read_names` does; their origin is the file's name."""
    return NameList(read_names(path), path.name)


def read_names(path: Path) -> list[str]:
    """Read the names of class 0, 1, ..., one per line.

    Raises:
        UserError: the file cannot be read, holds no name, or has an empty line between names, which would shift the
            names after it.
    """
    lines = read_lines(path)
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise UserError(f"{path}: holds no class name")
    if "" in lines:
        raise UserError(f"{path}: line {lines.index('') + 1} is empty; each line is the name of a class")
    _refuse_more_than_names(path, lines)
    return lines


def _refuse_more_than_names(path: Path, lines: Sequence[str]) -> None:
    """Refuse a file whose lines hold numbers, ids or marks in addition to the names, which would go into prompts."""
    if lines[0][0] in "[{" and lines[-1][-1] in "]}":
        raise UserError(f"{path}: looks like JSON; it must hold the names themselves, one a line")
    comment = next((number for number, line in enumerate(lines, 1) if line.startswith("# ")), None)
    if comment is not None:
        raise UserError(
            f"{path}: line {comment} looks like a comment ('{lines[comment - 1][:40]}'); each line is the name of a "
            "class"
        )
    firsts = [_NUMBER_FIRST.fullmatch(line) for line in lines]
    marked = all(first is not None and first[2].strip(" ") for first in firsts)
    what = ""
    if all(map(_ID_FIRST.fullmatch, lines)):
        what = "a WordNet id"
    elif (marked and _is_count(firsts)) or _is_count([_NUMBER_LAST.fullmatch(line) for line in lines]):
        what = "a number"
    if what:
        raise UserError(
            f"{path}: each line has {what} next to the name ('{lines[0][:40]}'), which would go into prompts"
        )


def _is_count(numbers: Sequence[re.Match[str] | None]) -> bool:
    """Return whether the numbers of at least two lines are 0, 1, ... or 1, 2, ..."""
    found = [int(number[1]) for number in numbers if number is not None]
    return len(numbers) > 1 and found in (list(range(len(numbers))), list(range(1, len(numbers) + 1)))


def read_lines(path: Path) -> list[str]:
    """Read the lines of a file, stripped, including empty ones.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    try:
        return [line.strip() for line in read_text(path).split("\n")]
    except FileNotFoundError:
        near = [each.name for each in path.parent.glob("*.txt")] if path.parent.is_dir() else []
        raise UserError(f"{path}: no such file{did_you_mean(path.name, near)}") from None
    except (OSError, NotText) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def name_classes(root: Path, folders: Sequence[str], names: Sequence[str] | None, origin: str) -> ClassNames:
    """Match folders with classes, and name the classes.

    Args:
        root: of the folders, for messages.
        folders: names of the class folders.
        names: of the classes; None: ImageNet's names if the folders are WordNet ids of ImageNet's classes, or else
            those of :func:`~bimodal_cl.data.labelled.class_folders.names_from_folders`.
        origin: of the names, for messages.

    Raises:
        UserError: the folders do not match the names, or two of them are the same number.
    """
    ordered = sorted(folders, key=natural_sort_key)
    numbers = _numbers(root, ordered)
    if names is None:
        own, notes = _own_names(ordered, "folder")
        return ClassNames(own, {folder: index for index, folder in enumerate(ordered)}, notes)
    negative = [folder for folder in ordered if re.fullmatch(r"-[0-9]+", folder)]
    if negative and all(re.fullmatch(r"-?[0-9]+", folder) for folder in ordered):
        raise UserError(f"{root}: folder '{negative[0]}' is not a class: class numbers count from 0")
    if numbers:
        labels, notes = _labels_by_number(root, numbers, len(names), origin)
    else:
        labels, notes = _labels_by_name(root, ordered, names, origin)
    notes += [*pairing_lines({folder: names[label] for folder, label in labels.items()})]
    return ClassNames(list(names), labels, notes + name_warnings(names))


def name_labels(labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """Name classes after their labels in a table, as after folders, and return notes for the user.

    Args:
        labels: by class index.
    """
    return _own_names(labels, "label")


def name_warnings(names: Sequence[str]) -> list[str]:
    """Return warnings about names of several classes, and about names that begin with numbers."""
    warnings = repeated_names(names)
    if _is_count([_NUMBER_FIRST.fullmatch(name) for name in names]):
        warnings.append(f"warning: the names begin with numbers, which go into the prompts: '{names[0]}', '{names[1]}'")
    return warnings


def repeated_names(names: Sequence[str]) -> list[str]:
    """Return a warning, or none, about the names that belong to several classes."""
    places: dict[str, list[str]] = {}
    for index, name in enumerate(names):
        places.setdefault(name, []).append(str(index))
    repeated = [f"'{name}' (classes {', '.join(at)})" for name, at in places.items() if len(at) > 1]
    if not repeated:
        return []
    more = f" and {len(repeated) - _SHOWN} more" if len(repeated) > _SHOWN else ""
    what = "a name stands" if len(repeated) == 1 else f"{len(repeated)} names stand"
    shown = ", ".join(repeated[:_SHOWN])
    return [f"warning: {what} for several classes, which no model can tell apart and which count as one: {shown}{more}"]


def pairing_lines(name_of_folder: dict[str, str], what: str = "folder") -> list[str]:
    """Return a line for each folder and its name; of many, the first and last lines and the count of those between."""
    lines = [f"{what} {folder} = '{name}'" for folder, name in name_of_folder.items()]
    if len(lines) <= _SHOWN:
        return lines
    between = len(lines) - _SHOWN + 1
    return [*lines[: _SHOWN - 4], f"... {between} more, all of them in the results ...", *lines[-3:]]


def _numbers(root: Path, folders: Sequence[str]) -> dict[str, int]:
    """Return the number of each folder, in ascending order; empty if the name of a folder is not a number."""
    if not all(re.fullmatch(r"[0-9]+", folder) for folder in folders):
        return {}
    numbers = {folder: int(folder) for folder in sorted(folders, key=lambda folder: (int(folder), folder))}
    folder_of: dict[int, str] = {}
    for folder, number in numbers.items():
        if number in folder_of:
            raise UserError(f"{root}: folders '{folder_of[number]}' and '{folder}' are both class {number}")
        folder_of[number] = folder
    return numbers


def _labels_by_number(
    root: Path, numbers: dict[str, int], num_names: int, origin: str
) -> tuple[dict[str, int], list[str]]:
    if list(numbers.values()) == list(range(1, num_names + 1)):
        labels = {folder: number - 1 for folder, number in numbers.items()}
        return labels, [f"folders 1 to {num_names} are as many as the names in {origin}, so they count from 1"]
    for folder, number in numbers.items():
        if number >= num_names:
            raise UserError(
                f"{root}: folder '{folder}' is class {number}, but {origin} has {num_names} names, of class 0 to "
                f"{num_names - 1} (folders count from 1 only if they are exactly 1 to {num_names})"
            )
    return dict(numbers), [f"folders are class numbers, from 0: their names are lines 1, 2, ... of {origin}"]


def _labels_by_name(
    root: Path, folders: Sequence[str], names: Sequence[str], origin: str
) -> tuple[dict[str, int], list[str]]:
    """Match folders and names by name, or else by their order."""
    counts = Counter(plain_name(name) for name in names)
    place = {plain_name(name): index for index, name in enumerate(names) if counts[plain_name(name)] == 1}
    found = {folder: place[plain_name(folder)] for folder in folders if plain_name(folder) in place}
    if len(found) == len(folders) == len(set(found.values())):
        return found, [f"folders are matched with the names in {origin}"]
    if len(folders) != len(names):
        hint = next((folder for folder in folders if folder not in found), None) if found else None
        called = f"; '{hint}' matches none of them" if hint is not None else ""
        raise UserError(f"{root}: {len(folders)} class folders but {len(names)} names in {origin}{called}")
    notes = [f"folders in natural sort order are matched with the lines of {origin} in order"]
    if list(folders) != sorted(folders):
        notes = [f"{notes[0]}: '{folders[0]}', '{folders[1]}', ..., not in alphabetical order as in torchvision"]
    crossed = [folder for index, folder in enumerate(folders) if found.get(folder, index) != index]
    if crossed:
        other = names[folders.index(crossed[0])]
        notes.append(
            f"warning: folder {crossed[0]} = '{other}' by that order, but {origin} has its name on another line"
        )
    return {folder: index for index, folder in enumerate(folders)}, notes


def _own_names(labels: Sequence[str], what: str) -> tuple[list[str], list[str]]:
    """Name classes after their labels, and return notes; ``what`` the labels are is for messages."""
    if labels and all(re.fullmatch(r"[0-9]+", label) for label in labels):
        notes = ["warning: the class names are numbers, which mean nothing to a text tower: give their names"]
    elif labels and all(_WORDNET_ID.fullmatch(label) for label in labels):
        names = _imagenet_names(labels)
        if names is not None:
            said = f"{what}s are WordNet ids of {len(names)} of ImageNet's 1,000 classes, called by open_clip's names"
            pairs = pairing_lines(dict(zip(labels, names, strict=True)), what)
            return names, [f"{said} for them", *pairs, *repeated_names(names)]
        notes = [
            f"warning: {what}s such as '{labels[0]}' are WordNet ids, which mean nothing to a text tower: give the "
            "classes' names"
        ]
    else:
        notes = []
    names, said_of_numbers = names_from_folders(labels, what)
    return names, notes + said_of_numbers + repeated_names(names)


def _imagenet_names(folders: Sequence[str]) -> list[str] | None:
    """Return open_clip's names of ImageNet's classes by WordNet id; None if an id is not one of ImageNet's 1,000."""
    name_of = imagenet_names()
    return [name_of[folder] for folder in folders] if all(folder in name_of for folder in folders) else None


def imagenet_names() -> dict[str, str]:
    """Return open_clip's names of ImageNet's 1,000 classes by WordNet id, in the order of the classes."""
    from open_clip import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    return dict(zip(ImageNetInfo("imagenet-1k").label_names(), IMAGENET_CLASSNAMES, strict=True))


def plain_name(name: str) -> str:
    """Return a name in the form in which names are compared: any case and Unicode form, ``_`` and ``-`` as spaces."""
    return " ".join(re.sub(r"[_-]", " ", unicodedata.normalize("NFKC", name)).casefold().split())
