"""Give each image of a data set a concept, such as "dog", and count the images of each; read tables of concepts."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.text_files import read_text

NO_CONCEPT = -1
_COLUMNS = ("image_id", "key", "concept")


@dataclass(frozen=True)
class ImageConcepts:
    """At most one concept of each image.

    Attributes:
        names: of the concepts, the most frequent first, equally frequent ones by name.
        of_image: int64 ``[images]``, the number of each image's concept in ``names``; ``NO_CONCEPT`` if it has none.
    """

    names: tuple[str, ...]
    of_image: np.ndarray

    @classmethod
    def from_names(cls, names: Iterable[str]) -> ImageConcepts:
        """Number the concepts of images that come in the order of ids, each by its name; "" is none."""
        of_image = list(names)
        counts = Counter(of_image)
        del counts[""]
        ranked = sorted(counts, key=lambda name: (-counts[name], name))
        numbers = {"": NO_CONCEPT, **{name: number for number, name in enumerate(ranked)}}
        return cls(tuple(ranked), np.array([numbers[name] for name in of_image], dtype=np.int64))

    @cached_property
    def counts(self) -> np.ndarray:
        """Number of images of each concept, int64 ``[concepts]``, descending."""
        return np.bincount(self.of_image[self.of_image != NO_CONCEPT], minlength=len(self.names))

    def find(self, image_id: int) -> tuple[str, int] | None:
        """Return the name of an image's concept and its number of images; None if the image has none."""
        number = int(self.of_image[image_id])
        return None if number == NO_CONCEPT else (self.names[number], int(self.counts[number]))


@dataclass(frozen=True)
class ConceptTable:
    """A CSV file that names a concept for each image by its ``image_id``, or by its ``key`` if there are no ids.

    Attributes:
        path: the file.
        by_id: ``(concept, key)`` by image id; the key is "" where the file has none. None if the file has no ids.
        by_key: the concept by key, if the file has no ids.
    """

    path: Path
    by_id: Mapping[int, tuple[str, str]] | None
    by_key: Mapping[str, str]

    @classmethod
    def load(cls, path: Path) -> ConceptTable:
        """Read the columns ``concept`` and ``image_id`` or ``key``; others are left out.

        Raises:
            UserError: the file cannot be read, lacks a column, or a row has no whole number as its id or an id or a key
                that came before.
        """
        try:
            lines = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
            header = next(lines, [])
            rows = [(lines.line_num, dict(zip(header, cells, strict=False))) for cells in lines if cells]
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
        _require_columns(path, header)
        with_ids = "image_id" in header
        by_id: dict[int, tuple[str, str]] = {}
        by_key: dict[str, str] = {}
        for line, row in rows:
            concept, key, text = (row.get(name, "").strip() for name in ("concept", "key", "image_id"))
            if with_ids and not (text.isascii() and text.isdigit()):
                raise UserError(f"{path}: line {line}: image_id '{text}' is not a whole number")
            if int(text) in by_id if with_ids else key in by_key:
                raise UserError(
                    f"{path}: line {line}: {f'image_id {text}' if with_ids else f'key {key!r}'} comes twice"
                )
            if with_ids:
                by_id[int(text)] = concept, key
            else:
                by_key[key] = concept
        return cls(path, by_id if with_ids else None, by_key)

    def name_of(self, image_id: int, key: str) -> str:
        """Return the name of an image's concept; "" if the table has none.

        Raises:
            UserError: the table has another key for this id, so it is one of other shards.
        """
        if self.by_id is None:
            return self.by_key.get(key, "")
        concept, named = self.by_id.get(image_id, ("", ""))
        if named and named != key:
            raise UserError(
                f"{self.path}: image_id {image_id} has the key '{named}', but '{key}' in these shards, so the table is "
                "one of other shards"
            )
        return concept

    def require_ids_of(self, num_images: int) -> None:
        """Require that all ids are those of ``num_images`` images.

        Raises:
            UserError: one is not, so the table is one of other shards.
        """
        last = max(self.by_id or (), default=-1)
        if last >= num_images:
            raise UserError(
                f"{self.path}: image_id {last} is outside [0, {num_images}), so the table is one of other shards"
            )

    def refuse(self, data: object, key: str) -> UserError:
        """Return the error that the table names no image of some data, with its first key beside that of the data."""
        first = next(iter(self.by_key), "")
        hint = f"; its first key is '{first}', that of the shards '{key}'" if first else ""
        return UserError(f"{self.path}: names a concept of no image of {data}{hint}")


def _require_columns(path: Path, header: list[str]) -> None:
    if "concept" in header and ("image_id" in header or "key" in header):
        return
    missing = "concept" if "concept" not in header else "image_id"
    near = did_you_mean(missing, [name for name in header if name not in _COLUMNS])
    need = "the columns 'concept', and 'image_id' or 'key'"
    raise UserError(f"{path}: no column '{missing}'{near}; a table of concepts has {need}, separated by commas")
