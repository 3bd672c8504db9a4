"""Sort rows into splits by a column ``split``, as copies of Karpathy's splits on the Hugging Face hub have one."""

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
    """Return whether there is a text column ``split``; ``features`` maps columns to their types, or is a row."""
    found = features.get(SPLIT_COLUMN)
    return isinstance(found, str) or getattr(found, "dtype", "") == "string"


def rows_of_splits(values: Iterable[Any]) -> dict[str, list[int]]:
    """Return the row numbers of each folder, ``train`` first; an empty dict if any value is not the name of a split.

    Args:
        values: the column, in order.
    """
    rows: dict[str, list[int]] = {folder: [] for folder in ("train", "val", "test")}
    for number, value in enumerate(values):
        folder = folder_of(value)
        if folder is None:
            return {}
        rows[folder].append(number)
    return {folder: numbers for folder, numbers in rows.items() if numbers}


def group_by_split(dataset: str, values: Sequence[Any]) -> dict[str, list[int]]:
    """Return what :func:`rows_of_splits` returns, and note what happens to the rows.

    Args:
        dataset: its name, for messages.
        values: the column, in order.
    """
    parts = rows_of_splits(values)
    if len(parts) > 1:
        note(f"{dataset}: rows are split into {', '.join(parts)} by column '{SPLIT_COLUMN}'")
    elif not parts:
        odd = [value for value in values if folder_of(value) is None]
        if len(odd) < len(values):
            note(
                f"{dataset}: column '{SPLIT_COLUMN}' is ignored, since {len(odd):,} of its values are not names of "
                f"splits ({odd[0]!r})"
            )
    return parts


def folder_of(value: Any) -> str | None:
    """Return the folder for a value of the column; None if it is not the name of a split."""
    return FOLDER_OF.get(str(value).strip().lower())
