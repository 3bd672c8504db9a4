"""Choose the columns that hold images and labels, and turn the values of a column into class indices."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bimodal_cl.data.labelled.class_labels import Label, find_class
from bimodal_cl.data.labelled.class_names import name_labels
from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.natural_sort import natural_sort_key

# Usual names, compared without case, spaces and underscores; the first is the default.
IMAGE_NAMES = (
    *("image", "img", "jpg", "jpeg", "png", "webp", "file_name", "image_path", "image_file", "file_path", "path"),
    *("file", "image_name", "picture", "photo"),
)
LABEL_NAMES = ("label", "labels", "class", "cls", "class_name", "category", "target", "npy")


@dataclass(frozen=True)
class ColumnOptions:
    """How to read tables and Hugging Face data sets.

    Attributes:
        image: name of the column of images; None: guessed.
        label: name of the column of labels; None: guessed.
        separator: between the labels of an image that may have several; None: a text is one label.
        root: folder that relative image paths start from; None: that of the data.
    """

    image: str | None = None
    label: str | None = None
    separator: str | None = None
    root: Path | None = None

    def folder(self, default: Path) -> Path:
        """Return the folder that relative image paths start from.

        Raises:
            UserError: ``root`` is no folder.
        """
        if self.root is not None and not self.root.is_dir():
            raise UserError(f"--root {self.root}: no such folder")
        return default if self.root is None else self.root

    def refuse_for(self, what: str) -> None:
        """Refuse all options for data without columns.

        Raises:
            UserError: one is given.
        """
        flags = {"image-column": self.image, "label-column": self.label, "label-separator": self.separator}
        given = next((flag for flag, value in {**flags, "root": self.root}.items() if value is not None), None)
        if given is not None:
            raise UserError(f"--{given}: {what} has no columns; it is for tables and Hugging Face data sets")


def choose_column(
    columns: Sequence[str], wanted: str | None, usual: Sequence[str], flag: str, where: str, typed: Sequence[str] = ()
) -> str:
    """Return the column of images or labels.

    Args:
        columns: names of all columns.
        wanted: the name that was given; None: the only column of a fitting type, else of a usual name.
        usual: usual names.
        flag: the flag that names the column, for messages.
        where: the data, for messages.
        typed: the columns whose type fits.

    Raises:
        UserError: there is no such column, or several may be meant.
    """
    if wanted is not None:
        if columns.count(wanted) == 1:
            return wanted
        if wanted in columns:
            raise UserError(f"{where}: {columns.count(wanted)} columns are called '{wanted}' ({flag})")
        raise UserError(f"{where}: no column '{wanted}' ({flag}){did_you_mean(wanted, columns)}")
    known = set(map(_plain, usual))
    likely = list(typed) or [column for column in columns if _plain(column) in known]
    if usual[0] in likely and likely.count(usual[0]) == 1:
        return usual[0]
    if len(likely) == 1:
        return likely[0]
    listed = ", ".join(map(repr, likely or columns))
    raise UserError(f"{where}: which column is it, {listed}? Give {flag}")


def split_labels(text: str, separator: str) -> list[str]:
    """Return the labels of a text; none of an empty one."""
    return [label.strip() for label in text.split(separator) if label.strip()]


@dataclass(frozen=True)
class IndexedLabels:
    """Labels as class indices.

    Attributes:
        classnames: by class index.
        labels: of every image.
        class_of_label: the class of every label as it is stored; empty where the names were given.
        notes: for the user.
    """

    classnames: list[str]
    labels: list[Label]
    class_of_label: dict[str, int]
    notes: list[str]


def index_labels(
    values: Sequence[str | list[str]], names: Sequence[str] | None, where: Callable[[int], str]
) -> IndexedLabels:
    """Turn labels into class indices.

    Args:
        values: the label of every image, or the list of its labels.
        names: of all classes; labels are names or numbers from 0. None: the labels themselves, in natural sort order.
        where: returns an image's place, for messages.

    Raises:
        UserError: a label is empty, or is none of the classes.
    """
    notes: list[str] = []
    index_of: dict[str, int] = {}
    own = names is None
    if names is None:
        ordered = sorted({label for value in values for label in _listed(value) if label}, key=natural_sort_key)
        names, notes = name_labels(ordered)
        index_of = {label: index for index, label in enumerate(ordered)}
    labels: list[Label] = []
    for row, value in enumerate(values):
        found = []
        for label in _listed(value):
            if not label:
                raise UserError(f"{where(row)}: no label")
            if label not in index_of:
                index_of[label] = find_class(where(row), label, names)
            found.append(index_of[label])
        labels.append(found[0] if isinstance(value, str) else _as_vector(found, len(names)))
    return IndexedLabels(list(names), labels, index_of if own else {}, notes)


def _listed(value: str | list[str]) -> Iterable[str]:
    return (value,) if isinstance(value, str) else value


def _as_vector(found: list[int], num_classes: int) -> np.ndarray:
    vector = np.zeros(num_classes, dtype=np.uint8)
    vector[found] = 1
    return vector


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name.casefold())
