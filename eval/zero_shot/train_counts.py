"""Read how many training images each class had, and sort the classes into head, medium and tail."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimodal_cl.errors import UserError, did_you_mean, one_line
from bimodal_cl.files.text_files import NotText, read_text

from ..datasets import require_file

if TYPE_CHECKING:
    from bimodal_cl.data import LabelledImages

_SHOWN = 3


@dataclass(frozen=True)
class TrainCounts:
    """Training images by class.

    Attributes:
        file: where they were read.
        counts: by class index.
        bounds: of the medium bucket, both included.
    """

    file: Path
    counts: list[int]
    bounds: tuple[int, int]

    def buckets(self) -> list[str]:
        """Return the bucket of every class."""
        from bimodal_cl.scoring.frequency_buckets import bucket_of_count

        return [bucket_of_count(count, self.bounds) for count in self.counts]

    def provenance(self) -> dict[str, Any]:
        """Return what the results record."""
        buckets = self.buckets()
        classes = {bucket: buckets.count(bucket) for bucket in dict.fromkeys(buckets)}
        return {"file": str(self.file), "medium": list(self.bounds), "num_classes": classes}


def read_train_counts(path: Path, labelled: LabelledImages, bounds: tuple[int, int]) -> TrainCounts:
    """Read counts and match them with the classes, by class name or by class folder.

    Args:
        path: JSON ``{"class": count}``, or a CSV or TSV of two columns, with or without a header.
        labelled: the images that are scored.
        bounds: of the medium bucket.

    Raises:
        UserError: the file cannot be read, a count is no whole number of at least 0, a name is none of the classes, or
            a class has no count.
    """
    from bimodal_cl.data.labelled.class_names import plain_name

    if not isinstance(labelled.labels[0], int):
        raise UserError(f"--train-counts {path}: the images may show several classes, which have no top-1 accuracy")
    classes_of: dict[str, list[int]] = {}
    for index, name in enumerate(labelled.classnames):
        classes_of.setdefault(plain_name(name), []).append(index)
    for folder, index in labelled.class_of_folder.items():
        classes_of.setdefault(plain_name(folder), [index])
    found: dict[int, int] = {}
    for name, count in _read(path):
        classes = classes_of.get(plain_name(name))
        if classes is None:
            near = did_you_mean(name, labelled.classnames)
            raise UserError(f"--train-counts {path}: '{name}' is none of the classes{near}")
        if classes[0] in found:
            raise UserError(f"--train-counts {path}: class '{labelled.classnames[classes[0]]}' has two counts")
        found |= dict.fromkeys(classes, count)
    missing = [name for index, name in enumerate(labelled.classnames) if index not in found]
    if missing:
        shown = ", ".join(f"'{name}'" for name in missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise UserError(
            f"--train-counts {path}: no count for {len(missing)} of {len(labelled.classnames)} classes: {shown}; "
            "write 0 for a class without training images"
        )
    return TrainCounts(path, [found[index] for index in range(len(labelled.classnames))], bounds)


def _read(path: Path) -> list[tuple[str, int]]:
    require_file(str(path), "--train-counts")
    try:
        text = read_text(path)
    except (OSError, NotText) as error:
        raise UserError(f"--train-counts {path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    rows = _read_json(path, text) if text.lstrip().startswith(("{", "[")) else _read_table(path, text)
    if not rows:
        raise UserError(f"--train-counts {path}: holds no count")
    return [(name, _as_count(path, name, count)) for name, count in rows]


def _read_json(path: Path, text: str) -> list[tuple[str, Any]]:
    try:
        found = json.loads(text, object_pairs_hook=list)
    except ValueError as error:
        raise UserError(f"--train-counts {path}: not JSON: {one_line(error)}") from None
    if not all(isinstance(each, tuple) for each in found):
        raise UserError(f"--train-counts {path}: must hold an object of class names and counts")
    return found


def _read_table(path: Path, text: str) -> list[tuple[str, str]]:
    first = text.split("\n", 1)[0]
    separator = "\t" if "\t" in first else ";" if ";" in first and "," not in first else ","
    rows = [(line, cells) for line, cells in enumerate(csv.reader(io.StringIO(text), delimiter=separator), 1) if cells]
    for line, cells in rows:
        if len(cells) != 2:
            raise UserError(f"--train-counts {path}, row {line}: {len(cells)} columns; it must be a class and a count")
    if rows and not rows[0][1][1].strip().lstrip("-").replace(".", "").isdecimal():
        rows = rows[1:]  # a header
    return [(cells[0].strip(), cells[1].strip()) for _, cells in rows]


def _as_count(path: Path, name: str, count: Any) -> int:
    whole = isinstance(count, int) and not isinstance(count, bool)
    if isinstance(count, str) and count.isdecimal():
        count, whole = int(count), True
    if not whole or count < 0:
        raise UserError(f"--train-counts {path}: the count of '{name}' is {count!r}; it must be a whole number from 0")
    return count
