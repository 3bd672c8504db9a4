"""Name a concept for each image of existing shards: from its captions, its metadata, or a table."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bimodal_cl.cli.progress import progress
from bimodal_cl.data.shards.concepts import ConceptTable, ImageConcepts
from bimodal_cl.data.shards.manifest import Manifest
from bimodal_cl.errors import UserError, did_you_mean

from .caption_words import CaptionConcepts
from .rows import StoredRow, iterate_rows

if TYPE_CHECKING:
    from bimodal_cl.data.storage.storage import Storage

_METADATA = ".json"


@dataclass(frozen=True)
class NamedImages:
    """The concepts of a data set's images.

    Attributes:
        concepts: of the images.
        keys: of their samples, by image id.
    """

    concepts: ImageConcepts
    keys: list[str]


def name_images(manifest: Manifest, storage: Storage, field: str | None, table: Path | None) -> NamedImages:
    """Name a concept for each image that has captions.

    Args:
        manifest: of the data set.
        storage: opens its shards.
        field: the key of each sample's ``.json`` that holds the concept, with dots between nested keys.
        table: a file for :class:`ConceptTable`. Without either, :class:`CaptionConcepts` names them.

    Raises:
        UserError: the shards, a ``.json`` or the table cannot be read, or no image has a concept.
        OSError: the disk or a server failed.
    """
    name: Callable[[StoredRow], str]
    loaded = None
    if table is not None:
        loaded = ConceptTable.load(table)
        loaded.require_ids_of(manifest.num_images)
        name = lambda row: loaded.name_of(row.image_id, row.key)  # noqa: E731
    elif field is not None:
        name = lambda row: _read_field(row, field)  # noqa: E731
    else:
        rows = progress(iterate_rows(manifest, storage), manifest.num_images, "images", "count words")
        words = CaptionConcepts(caption for row in rows for caption in row.captions)
        name = lambda row: words.name(row.captions)  # noqa: E731
    names, keys = [], []
    for row in progress(iterate_rows(manifest, storage), manifest.num_images, "images", "name concepts"):
        names.append(name(row) if row.captions else "")
        keys.append(row.key)
    concepts = ImageConcepts.from_names(names)
    if not concepts.names and loaded is not None:
        raise loaded.refuse(manifest.folder, keys[0] if keys else "")
    if not concepts.names:
        source = f"the field '{field}' of the .json" if field else "the words of the captions"
        raise UserError(f"{manifest.folder}: no image has a concept by {source}")
    return NamedImages(concepts, keys)


def _read_field(row: StoredRow, field: str) -> str:
    """Return the text or number at a key of a sample's metadata; "" if it has no metadata, or null there."""
    data = row.read(_METADATA)
    if data is None:
        return ""
    where = f"shard {row.shard}: {row.key}{_METADATA}"
    try:
        value = json.loads(data)
    except ValueError as error:
        raise UserError(f"{where}: not readable as JSON: {error}") from None
    for part in field.split("."):
        if not isinstance(value, dict) or part not in value:
            near = did_you_mean(part, list(value)) if isinstance(value, dict) else ""
            raise UserError(f"{where}: no key '{field}'{near}")
        value = value[part]
    if isinstance(value, dict | list):
        raise UserError(f"{where}: '{field}' holds {'an object' if isinstance(value, dict) else 'a list'}, not a name")
    return "" if value is None else " ".join(str(value).split())
