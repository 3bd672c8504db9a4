"""Data sets whose rows name their split in a column, as those of Karpathy's splits on the hub do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bimodal_cl.cli.progress import note

SPLIT_COLUMN = "split"
# Karpathy's names of splits and the folder of each; images of ``restval`` are trained on, as usual.
SPLIT_OF = {"train": "train", "restval": "train", "val": "val", "test": "test"}
# The same for the names that other data sets give their splits.
FOLDER_OF = {**SPLIT_OF, "valid": "val", "validation": "val", "dev": "val"}


def has_split_column(features: Mapping[str, Any]) -> bool:
    """Whether a column of texts is called ``split``; ``features`` are the columns' types, or a row."""
    found = features.get(SPLIT_COLUMN)
    return isinstance(found, str) or getattr(found, "dtype", "") == "string"


def rows_of_splits(values: Iterable[Any]) -> dict[str, list[int]]:
    """Return the numbers of the rows of each folder, ``train`` first; nothing where a value is no split's name.

    Args:
        values: of the column, in order. ``restval`` belongs to ``train``, as usual.
    """
    rows: dict[str, list[int]] = {folder: [] for folder in ("train", "val", "test")}
    for number, value in enumerate(values):
        folder = folder_of(value)
        if folder is None:
            return {}
        rows[folder].append(number)
    return {folder: numbers for folder, numbers in rows.items() if numbers}


def tell_splits(dataset: str, values: Sequence[Any]) -> dict[str, list[int]]:
    """Return the numbers of the rows of each folder as :func:`rows_of_splits`, and say what becomes of the rows.

    Args:
        dataset: what messages call it.
        values: of the column.
    """
    parts = rows_of_splits(values)
    if len(parts) > 1:
        note(f"{dataset}: rows go to {', '.join(parts)} by their column '{SPLIT_COLUMN}'")
    elif not parts:
        odd = [value for value in values if folder_of(value) is None]
        if len(odd) < len(values):
            note(
                f"{dataset}: rows stay together, whatever their column '{SPLIT_COLUMN}' says, since {len(odd):,} of "
                f"them hold no split's name there ({odd[0]!r})"
            )
    return parts


def folder_of(value: Any) -> str | None:
    """The folder of a row's split; None where its name is not a split's."""
    return FOLDER_OF.get(str(value).strip().lower())
