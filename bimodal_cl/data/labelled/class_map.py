"""Map the classes of a data set to the names that a model is asked for, one or several per class."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from bimodal_cl.data.labelled.class_names import pairing_lines, plain_name, repeated_names
from bimodal_cl.data.labelled.images import ImageSource, LabelledImages
from bimodal_cl.errors import UserError, did_you_mean, one_line
from bimodal_cl.files.text_files import NotText, read_text

_SHOWN = 5


@dataclass(frozen=True)
class ClassMap:
    """The classes to score, in order.

    Attributes:
        origin: a file or the name of a built-in map, for messages.
        names: by class of the data (its folder, or its name where there are no folders), the names for prompts. Of
            several, the one most similar to the image counts, as if a prediction of any were right.
    """

    origin: str
    names: dict[str, list[str]]

    def apply(self, labelled: LabelledImages) -> LabelledImages:
        """Return the images of the mapped classes, with the map's names.

        A class of the data is that of the map with the same key, else the one whose key differs only in case, ``_`` or
        ``-`` and is no class of the data itself.

        Raises:
            UserError: the map has none of the data's classes, two of these are one of the map's or the reverse, or the
                images may show several classes.
        """
        labels = [label for label in labelled.labels if isinstance(label, int)]
        if len(labels) < len(labelled):
            raise UserError(f"--class-map {self.origin}: the images may show several classes")
        keys = list(labelled.class_of_folder.items()) or [(name, at) for at, name in enumerate(labelled.classnames)]
        found = self._find([key for key, _ in keys])
        if not found:
            first = keys[0][0]
            raise UserError(
                f"--class-map {self.origin}: has none of the {len(keys)} classes of {labelled.name}, such as "
                f"'{first}'{did_you_mean(first, self.names)}"
            )
        new_label = {label: found[key] for key, label in keys if key in found}
        rows = [row for row, label in enumerate(labels) if label in new_label]
        if not rows:
            raise UserError(f"--class-map {self.origin}: no image of {labelled.name} is of a class that it has")
        titles = [names[0] if len(names) == 1 else key.replace("_", " ") for key, names in self.names.items()]
        notes = [
            f"{len(titles):,} classes by {self.origin}",
            *self._remarks([key for key, _ in keys], found, len(labels) - len(rows)),
        ]
        listed = list(self.names.values())
        notes += pairing_lines({key: ", ".join(listed[place]) for key, place in found.items()})
        return LabelledImages(
            labelled.name,
            titles,
            labelled.templates,
            [new_label[labels[row]] for row in rows],
            ChosenImages(labelled.source, rows),
            {key: place for key, place in found.items() if key in labelled.class_of_folder},
            [*notes, *repeated_names(titles)],
            listed,
        )

    def _find(self, keys: list[str]) -> dict[str, int]:
        """Return the place in the map of each of the data's classes that it has."""
        place_of = {key: place for place, key in enumerate(self.names)}
        found = {key: place_of[key] for key in keys if key in place_of}
        left: dict[str, list[str]] = {}
        for key in self.names:
            if key not in found:
                left.setdefault(plain_name(key), []).append(key)
        spelling: dict[str, str] = {}
        for key in dict.fromkeys(keys):
            alike = [] if key in found else left.get(plain_name(key), [])
            if len(alike) > 1:
                raise UserError(
                    f"--class-map {self.origin}: '{alike[0]}' and '{alike[1]}' may both mean class '{key}' of the "
                    "data; write it as there"
                )
            if alike:
                first = spelling.setdefault(alike[0], key)
                if first != key:
                    raise UserError(
                        f"--class-map {self.origin}: '{alike[0]}' may mean the classes '{first}' and '{key}' of the "
                        "data; write each as there"
                    )
                found[key] = place_of[alike[0]]
        return {key: found[key] for key in keys if key in found}

    def _remarks(self, keys: list[str], found: dict[str, int], num_left_out: int) -> list[str]:
        remarks = []
        if left_out := [key for key in keys if key not in found]:
            shown = ", ".join(left_out[:_SHOWN]) + (", ..." if len(left_out) > _SHOWN else "")
            remarks.append(
                f"{len(left_out):,} of {len(keys):,} classes of the data are not in {self.origin} and are left out, "
                f"with {num_left_out:,} images: {shown}"
            )
        if without := len(self.names) - len(set(found.values())):
            remarks.append(f"warning: {without:,} classes of {self.origin} are not in the data; they stay candidates")
        return remarks


class ChosenImages:
    """Some images of a source, by their place in it."""

    def __init__(self, source: ImageSource, rows: list[int]) -> None:
        self._source, self._rows = source, rows

    def read(self, index: int) -> bytes:
        """Return an encoded image."""
        return self._source.read(self._rows[index])

    def describe(self, index: int) -> str:
        """Return where an image is."""
        return self._source.describe(self._rows[index])


def read_class_map(path: Path) -> ClassMap:
    """Read a map from JSON: ``{"class of the data": "name", ...}`` or ``{"class of the data": ["name", ...], ...}``.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    try:
        found = json.loads(read_text(path))
    except (OSError, NotText, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(f"--class-map {path}: cannot be read as JSON: {reason}") from None
    if not isinstance(found, dict) or not found:
        raise UserError(f"--class-map {path}: must hold an object of classes and names")
    names = {}
    for key, value in found.items():
        listed = value if isinstance(value, list) else [value]
        if not listed or not all(isinstance(each, str) and each.strip() for each in listed):
            raise UserError(f"--class-map {path}: '{key}' must have a name or a list of names, got {value!r:.40}")
        names[key] = [each.strip() for each in listed]
    return ClassMap(path.name, names)
