"""Read encoded features by ``image_id`` and ``text_id`` from memory-mapped tables, of one data set or of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any
from zipfile import BadZipFile

import numpy as np

from bimodal_cl.data.features.manifest import (
    FIRST_TEXTS_FILE,
    IMAGES_FILE,
    MOMENTS_FILE,
    TEXTS_FILE,
    FeatureManifest,
)
from bimodal_cl.data.shards.faults import Fault
from bimodal_cl.errors import UserError, one_line


class FeatureTable:
    """The features of one data set.

    Args:
        manifest: describes them.

    Attributes:
        manifest: as given.
        images: float16 ``[1 + views, num_images, image_width]``, memory-mapped.
        texts: float16 ``[num_texts, text_width]``, memory-mapped.
        first_text_ids: int64 ``[num_images + 1]``; image ``i`` has the captions from its own to the next one.

    Raises:
        UserError: a file is missing, damaged, or of another size.
    """

    def __init__(self, manifest: FeatureManifest) -> None:
        self.manifest = manifest
        images = (1 + manifest.views, manifest.num_images, manifest.image_width)
        self.images = self._open(IMAGES_FILE, np.float16, images)
        self.texts = self._open(TEXTS_FILE, np.float16, (manifest.num_texts, manifest.text_width))
        self.first_text_ids = np.array(self._open(FIRST_TEXTS_FILE, np.int64, (manifest.num_images + 1,)))

    def moments(self) -> dict[str, np.ndarray]:
        """Return ``image_mean``, ``image_variance``, ``text_mean`` and ``text_variance``, float64 ``[width]``.

        Raises:
            UserError: the file is missing or damaged.
        """
        path = self.manifest.folder / MOMENTS_FILE
        try:
            with np.load(path) as file:
                found = dict(file)
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise UserError(f"{path}: cannot be read ({one_line(error)})") from None
        for modality, width in (("image", self.manifest.image_width), ("text", self.manifest.text_width)):
            for name in (f"{modality}_mean", f"{modality}_variance"):
                if name not in found or found[name].shape != (width,):
                    raise UserError(f"{path}: holds no '{name}' of {width} numbers")
        return found

    @property
    def num_encoded(self) -> dict[str, int]:
        """Number of images, and of captions, that have features: those of usable images."""
        unusable = [fault.image_id for fault in self.manifest.unusable]
        without = int(np.diff(self.first_text_ids)[unusable].sum())
        return {"image": self.manifest.num_images - len(unusable), "text": self.manifest.num_texts - without}

    def _open(self, name: str, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
        path = self.manifest.folder / name
        try:
            found = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: cannot be read ({one_line(error)})") from None
        if found.shape != shape or found.dtype != dtype:
            raise UserError(
                f"{path}: is {found.dtype} {list(found.shape)}, but features.json says {np.dtype(dtype)} {list(shape)}"
            )
        return found


class FeatureTables:
    """The features of the data sets of a mixture, by the mixture's ids.

    Args:
        tables: of each data set, in the mixture's order, of the same towers and views.

    Raises:
        UserError: they are of different towers or were augmented differently.
    """

    def __init__(self, tables: Sequence[FeatureTable]) -> None:
        self.tables = list(tables)
        self.first = first = self.tables[0].manifest
        for other in (table.manifest for table in self.tables[1:]):
            for key, value in first.identity.items():
                if other.identity.get(key) != value:
                    raise UserError(
                        f"{other.folder}: {key} is {other.identity.get(key)!r}, that of {first.folder} is {value!r}: "
                        "encode them alike"
                    )

    @property
    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with its checkpoint."""
        return self.first.identity

    @cached_property
    def image_offsets(self) -> np.ndarray:
        """The first ``image_id`` of every data set, and the total: int64 ``[sets + 1]``."""
        return np.cumsum([0, *(table.manifest.num_images for table in self.tables)])

    @cached_property
    def text_offsets(self) -> np.ndarray:
        """The first ``text_id`` of every data set, and the total: int64 ``[sets + 1]``."""
        return np.cumsum([0, *(table.manifest.num_texts for table in self.tables)])

    @cached_property
    def first_text_ids(self) -> np.ndarray:
        """The ``text_id`` of every image's first caption, and the total: int64 ``[images + 1]``."""
        parts = [
            table.first_text_ids[:-1] + before
            for table, before in zip(self.tables, self.text_offsets[:-1], strict=True)
        ]
        return np.concatenate([*parts, self.text_offsets[-1:]])

    @cached_property
    def unusable(self) -> dict[int, Fault]:
        """Images that cannot be trained on, by ``image_id``."""
        return {
            int(before) + fault.image_id: replace(fault, image_id=int(before) + fault.image_id)
            for table, before in zip(self.tables, self.image_offsets[:-1], strict=True)
            for fault in table.manifest.unusable
        }

    def images(self, image_ids: np.ndarray, views: np.ndarray) -> np.ndarray:
        """Return float16 ``[ids, width]``: of each image the view of that number, int64 ``[ids]`` each."""
        if len(self.tables) == 1:
            return self.tables[0].images[views, image_ids]
        found = np.empty((len(image_ids), self.first.image_width), np.float16)
        for table, here, ids in self._split(image_ids, self.image_offsets):
            found[here] = table.images[views[here], ids]
        return found

    def texts(self, text_ids: np.ndarray) -> np.ndarray:
        """Return float16 ``[ids, width]`` of some captions, int64 ``[ids]``."""
        if len(self.tables) == 1:
            return self.tables[0].texts[text_ids]
        found = np.empty((len(text_ids), self.first.text_width), np.float16)
        for table, here, ids in self._split(text_ids, self.text_offsets):
            found[here] = table.texts[ids]
        return found

    def moments(self) -> dict[str, np.ndarray]:
        """Return mean and variance of each feature over all data sets, as :meth:`FeatureTable.moments` does.

        The variance of several sets is that within them and that of their means (law of total variance).
        """
        pooled = {}
        for modality in ("image", "text"):
            sizes = np.array([table.num_encoded[modality] for table in self.tables], dtype=np.float64)
            share = (sizes / max(sizes.sum(), 1))[:, None]
            each = [table.moments() for table in self.tables]
            means = np.stack([moments[f"{modality}_mean"] for moments in each])
            variances = np.stack([moments[f"{modality}_variance"] for moments in each])
            mean = (share * means).sum(0)
            pooled[f"{modality}_mean"] = mean
            pooled[f"{modality}_variance"] = (share * (variances + (means - mean) ** 2)).sum(0)
        return pooled

    def _split(self, ids: np.ndarray, offsets: np.ndarray) -> list[tuple[FeatureTable, np.ndarray, np.ndarray]]:
        sets = np.searchsorted(offsets, ids, side="right") - 1
        return [
            (table, sets == number, ids[sets == number] - offsets[number])
            for number, table in enumerate(self.tables)
            if (sets == number).any()
        ]
