"""Iterate over the rows of existing shards in the order of image ids, with every member of a row at hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bimodal_cl.data.shards.index import split_captions
from bimodal_cl.data.shards.manifest import Manifest
from bimodal_cl.data.storage.locations import redact
from bimodal_cl.data.tar.samples import TarSample, TarSamples, open_samples
from bimodal_cl.errors import UserError

if TYPE_CHECKING:
    from bimodal_cl.data.storage.storage import Storage


@dataclass(frozen=True)
class StoredRow:
    """A row of a shard that is open until the next shard's first row.

    Attributes:
        image_id: in the data set.
        key: of the sample.
        shard: its name, for messages.
        captions: all of them, in order; empty if the row has no text beside its image.
    """

    image_id: int
    key: str
    shard: str
    captions: list[str]
    _tar: TarSamples
    _sample: TarSample

    def read(self, extension: str) -> bytes | None:
        """Return the content of a member; None if the row has none of this extension."""
        return self._tar.read(self._sample, extension) if extension in self._sample.members else None

    def members(self) -> dict[str, bytes]:
        """Return the content of all members by extension, in their order in the tar."""
        return {extension: self._tar.read(self._sample, extension) for extension in self._sample.members}


def iterate_rows(manifest: Manifest, storage: Storage) -> Iterator[StoredRow]:
    """Yield every row of a data set, in the order of ids.

    Raises:
        UserError: a shard cannot be read, or its rows are not those of the manifest.
        OSError: the disk or a server failed.
    """
    image_id = 0
    for number, entry in enumerate(manifest.shards):
        location = manifest.location(number)
        name = redact(location)
        with open_samples(storage.local_copy(location), name) as tar:
            samples = [sample for sample in tar.samples if sample.image is not None]
            if len(samples) != entry.num_images:
                raise UserError(
                    f"shard {name}: holds {len(samples):,} images but the manifest says {entry.num_images:,}; "
                    f"`{manifest.index_command}` indexes it as it is now"
                )
            for sample in samples:
                text = b"" if sample.text is None else tar.read(sample, sample.text)
                captions = split_captions(text, manifest.captions)
                yield StoredRow(image_id, sample.key, redact(entry.name), captions, tar, sample)
                image_id += 1
