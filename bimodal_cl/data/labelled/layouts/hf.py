"""Open labelled images of Hugging Face's ``datasets``: a hub name, a folder of ``save_to_disk``, or parquet files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bimodal_cl.data.labelled.class_names import NameList, name_labels, name_warnings
from bimodal_cl.data.labelled.images import LabelledImages
from bimodal_cl.data.labelled.layouts.columns import (
    IMAGE_NAMES,
    LABEL_NAMES,
    ColumnOptions,
    choose_column,
    index_labels,
    split_labels,
)
from bimodal_cl.data.labelled.layouts.files_beside import read_names_beside, read_templates
from bimodal_cl.errors import NoSuchSplit, UserError, did_you_mean, one_line

HUB = "hf:"
PARQUET = ".parquet"
_ALL_SPLITS, _ONE_SPLIT = "dataset_dict.json", "state.json"  # written by save_to_disk
_SAVED = (_ALL_SPLITS, _ONE_SPLIT)


class DatasetRows:
    """Images in the rows of a data set.

    Args:
        rows: with the column ``column`` of type ``Image(decode=False)``.
        column: its name.
        name: of the data set, for messages.
        root: folder that relative paths of images outside the data set start from.
    """

    def __init__(self, rows: Any, column: str, name: str, root: Path) -> None:
        self._rows, self._column, self._name, self._root = rows, column, name, root

    def read(self, index: int) -> bytes:
        """Return the stored bytes, or those of the file that the row names."""
        image = self._rows[index][self._column]
        if image is None:
            raise OSError("the row holds no image")
        return image["bytes"] if image["bytes"] is not None else (self._root / image["path"]).read_bytes()

    def describe(self, index: int) -> str:
        """Return the data set and the row, from 0."""
        return f"{self._name}, row {index}"


def is_hf(path: Path, split: str) -> bool:
    """Return whether a file or folder holds a data set that :func:`open_hf` reads."""
    if path.is_file():
        return path.suffix.lower() == PARQUET
    return any((path / name).is_file() for name in _SAVED) or bool(_parquet_splits(path, split))


def holds_one_split(path: Path) -> bool:
    """Return whether :func:`load_rows` takes a file or folder for any split, since it says nothing of splits."""
    return path.is_file() or ((path / _ONE_SPLIT).is_file() and not (path / _ALL_SPLITS).is_file())


def open_hf(given: str, name: str, split: str, options: ColumnOptions, listed: NameList | None) -> LabelledImages:
    """Open one split of a data set.

    Class names are those of ``listed``, of ``classnames.txt`` in the folder, or of the column's type
    ``ClassLabel``, else the labels themselves. A column of lists is multi-label.

    Args:
        given: ``hf:NAME`` or ``hf:NAME:CONFIGURATION`` on the hub, a folder or a parquet file.
        name: of the data set in results.
        split: name of the part.
        options: the columns, and the folder of relative image paths; by default the folder, or that of the file.
        listed: names by class index.

    Raises:
        UserError: the data set cannot be loaded, or has no such split or column, or a label is no class.
    """
    beside = [] if given.startswith(HUB) else [Path(given).parent if Path(given).is_file() else Path(given)]
    root = options.folder(beside[0] if beside else Path())
    rows = load_rows(given, split)
    image, label = _choose_columns(given, rows.features, options)
    listed = listed or read_names_beside(beside)
    names = None if listed is None else listed.names
    notes = [] if names is None else name_warnings(names)
    kind = rows.features[label]
    kind = getattr(kind, "feature", kind)  # of a list, its elements
    labels = [_as_texts(value, kind, options.separator) for value in rows[label]]
    class_of_label = {}
    if names is None and hasattr(kind, "names"):
        names, notes = name_labels(kind.names)
        class_of_label = {text: index for index, text in enumerate(kind.names)}
    found = index_labels(labels, names, lambda row: f"{given}, row {row}, column '{label}'")
    return LabelledImages(
        name,
        found.classnames,
        read_templates(beside),
        found.labels,
        DatasetRows(_encoded(given, rows, image), image, given, root),
        notes=[*notes, *found.notes],
        class_of_label=class_of_label or found.class_of_label,
    )


def load_rows(given: str, split: str) -> Any:
    """Return a split of a data set, a ``datasets.Dataset``.

    Args:
        given: ``hf:NAME`` or ``hf:NAME:CONFIGURATION`` on the hub, a folder or a parquet file.
        split: name of the part; a file, or a folder that ``save_to_disk`` wrote of one split, has no others.

    Raises:
        NoSuchSplit: the data set has no such split.
        UserError: the data set cannot be loaded.
    """
    from datasets import Dataset, disable_progress_bars, load_dataset, load_from_disk
    from datasets.utils.logging import set_verbosity_error

    disable_progress_bars()
    set_verbosity_error()
    path = Path(given)
    try:
        if given.startswith(HUB):
            name, _, configuration = given.removeprefix(HUB).partition(":")
            loaded = load_dataset(name, configuration or None)
        elif path.is_file():
            return load_dataset("parquet", data_files=str(path), split="train")  # a file is one split
        elif any((path / saved).is_file() for saved in _SAVED):
            loaded = load_from_disk(str(path))
        else:
            files = _parquet_splits(path, split)
            if split in files:
                return load_dataset("parquet", data_files=files[split], split="train")
            loaded = files  # what there is, for the message
    except Exception as error:  # of the readers or the network: it concerns the data set that the user named
        raise UserError(f"--data {given}: {one_line(error)}") from None
    if isinstance(loaded, Dataset):
        return loaded
    if split not in loaded:
        raise NoSuchSplit(f"--split {split}: not in {given}{did_you_mean(split, loaded)}")
    return loaded[split]


def _parquet_splits(folder: Path, split: str) -> dict[str, list[str]]:
    """Return the parquet files of every split, as the hub lays them out, or of one in a folder of its own."""
    files: dict[str, list[str]] = {}
    for path in sorted([*folder.glob("*.parquet"), *(folder / "data").glob("*.parquet")]):
        files.setdefault(re.sub(r"(-[0-9]+)?(-of-[0-9]+)?$", "", path.stem), []).append(str(path))
    if split not in files and (inside := sorted((folder / split).glob("*.parquet"))):
        files[split] = [str(path) for path in inside]
    return files


def _choose_columns(given: str, features: Any, options: ColumnOptions) -> tuple[str, str]:
    columns = list(features)
    typed = [name for name, kind in features.items() if type(kind).__name__ == "Image"]
    image = choose_column(columns, options.image, IMAGE_NAMES, "--image-column", given, typed)
    classes = [
        name for name, kind in features.items() if hasattr(getattr(kind, "feature", kind), "names") and name != image
    ]
    return image, choose_column(columns, options.label, LABEL_NAMES, "--label-column", given, classes)


def _as_texts(value: Any, kind: Any, separator: str | None) -> str | list[str]:
    """Return a label, or a list of them, as class names or numbers."""
    if isinstance(value, (list, tuple)):
        return [text for each in value for text in [_as_texts(each, kind, None)] if isinstance(text, str)]
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip() if separator is None else split_labels(value, separator)
    return str(value)


def _encoded(given: str, rows: Any, column: str) -> Any:
    from datasets import Image

    try:
        return rows.select_columns([column]).cast_column(column, Image(decode=False))
    except (TypeError, ValueError, NotImplementedError, KeyError) as error:
        raise UserError(f"--image-column {column}: holds no images in {given}: {one_line(error)}") from None
