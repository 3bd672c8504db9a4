"""Random access to the rows of a mixture by its ids: a row reader for each data set, opened when it is first needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bimodal_cl.data.shards.manifest import Manifest
from bimodal_cl.data.shards.mixture import Mixture
from bimodal_cl.data.shards.reader import Row, RowReader
from bimodal_cl.data.storage.locations import redact


class MixtureReader:
    """Reads rows of a mixture by ``image_id``. One a process: what it opens is not shared.

    Args:
        mixture: the data sets.
        open_reader: opens one of them.
    """

    def __init__(self, mixture: Mixture, open_reader: Callable[[Manifest], RowReader] = RowReader) -> None:
        self.mixture = mixture
        self._open_reader = open_reader
        self._readers: dict[int, RowReader] = {}

    def read(self, image_id: int) -> Row:
        """Read one row, with the mixture's ids.

        Raises:
            UserError: ``image_id`` is outside the data, or its shard is not what the manifest says.
            ServerFailed: the shard's server failed too often; so do the methods below.
            OSError: the disk failed.
        """
        reader, number, inside = self._locate(image_id)
        row = reader.read(inside)
        return row._replace(first_text_id=row.first_text_id + int(self.mixture.text_offsets[number]))

    def read_captions(self, image_id: int) -> tuple[int, list[str]]:
        """Return the ``text_id`` of an image's first caption and all its captions; the image is not read."""
        reader, number, inside = self._locate(image_id)
        first_text_id, captions = reader.read_captions(inside)
        return first_text_id + int(self.mixture.text_offsets[number]), captions

    def prefetch(self, image_ids: Iterable[int]) -> None:
        """Fetch what rows need that are read next, at once where their shards are not on this machine."""
        by_set: dict[int, list[int]] = {}
        for image_id in image_ids:
            number = self.mixture.locate(image_id)
            by_set.setdefault(number, []).append(image_id - int(self.mixture.image_offsets[number]))
        for number, inside in by_set.items():
            self._reader(number).prefetch(inside)

    def describe(self, image_id: int, with_key: bool = True) -> tuple[str, str]:
        """Return the shard's name and the key of an image, or "row N" instead of its key, for messages.

        To find a key, the shard's headers are read again.
        """
        reader, _, inside = self._locate(image_id)
        shard, row = reader.locate(inside)
        return redact(reader.manifest.shards[shard].name), reader.key(inside) if with_key else f"row {row}"

    def neighbours(self, image_id: int, near: bool) -> tuple[int, int]:
        """Return the first id and the number of images of an image's shard (``near``), or of its data set."""
        reader, number, inside = self._locate(image_id)
        offset, manifest = int(self.mixture.image_offsets[number]), reader.manifest
        if not near:
            return offset, manifest.num_images
        shard, _ = reader.locate(inside)
        return offset + int(manifest.image_offsets[shard]), manifest.shards[shard].num_images

    def folder(self, image_id: int) -> str:
        """Return the folder of an image's data set, for messages."""
        return str(self._locate(image_id)[0].manifest.folder)

    def close(self) -> None:
        """Close all files."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def _locate(self, image_id: int) -> tuple[RowReader, int, int]:
        number = self.mixture.locate(image_id)
        return self._reader(number), number, image_id - int(self.mixture.image_offsets[number])

    def _reader(self, number: int) -> RowReader:
        if number not in self._readers:
            self._readers[number] = self._open_reader(self.mixture.manifests[number])
        return self._readers[number]
