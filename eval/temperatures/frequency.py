"""Set temperatures beside how frequent the meaning of each anchor is: the number of images of its image's concept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bimodal_cl.data.shards.concepts import NO_CONCEPT, ConceptTable, ImageConcepts

from ..captions import ConceptTemperature
from .correlation import Correlation, correlate
from .learned import LearnedTemperatures
from .visits import Visits

if TYPE_CHECKING:
    from bimodal_cl.data.shards.mixture import Mixture

_GIVEN = " given visits"
_MOST_ANCHORS = 100_000  # of a correlation, so that its interval takes seconds


@dataclass(frozen=True)
class Frequency:
    """What is known of how often each anchor was visited, and of how frequent its concept is.

    Attributes:
        visits: None where they are not known.
        concepts: of the images; None where no table names them.
    """

    visits: Visits | None = None
    concepts: ImageConcepts | None = None

    def columns(self, kind: str, number: int, image_id: int | None) -> dict[str, Any]:
        """Return the columns of an image or a text for the tables; None where they are not known.

        Args:
            kind: "image" or "text".
            number: its id.
            image_id: of the image, or of the one that the text describes.
        """
        concept = None if self.concepts is None or image_id is None else self.concepts.find(image_id)
        return {
            "visits": None if self.visits is None else int(self.visits.of(kind)[number]),
            **dict(zip(("concept", "concept_count"), concept or (None, None), strict=True)),
        }


def load_image_concepts(path: Path, data: Mixture) -> ImageConcepts:
    """Read the concept of each image of the training data from a table; a concept's count is that in these data.

    Raises:
        UserError: see :class:`ConceptTable`; or the table is one of other shards, or names no concept.
    """
    from bimodal_cl.data.shards.reader import RowReader

    table = ConceptTable.load(path)
    table.require_ids_of(data.num_images)
    reader = RowReader(data)
    try:
        keys = [reader.describe(image_id)[1] for image_id in range(data.num_images)]
        concepts = ImageConcepts.from_names(table.name_of(image_id, key) for image_id, key in enumerate(keys))
    finally:
        reader.close()
    if not concepts.names:
        raise table.refuse(data, keys[0])
    return concepts


def find_owners(data: Mixture) -> np.ndarray:
    """Return the image of each text, int64 ``[texts]``."""
    from bimodal_cl.data.pairs import find_first_text_ids

    return np.repeat(np.arange(data.num_images), np.diff(find_first_text_ids(data)))


def mean_by_concept(
    concepts: ImageConcepts, owners: np.ndarray, images: LearnedTemperatures, texts: LearnedTemperatures
) -> list[ConceptTemperature]:
    """Return the mean temperature of each concept's visited images and of their visited texts, where there are both."""
    means = []
    for each, of_anchor in ((images, concepts.of_image[images.ids]), (texts, concepts.of_image[owners[texts.ids]])):
        known = of_anchor != NO_CONCEPT
        sizes = np.bincount(of_anchor[known], minlength=len(concepts.names))
        sums = np.bincount(of_anchor[known], each.tau[known], minlength=len(concepts.names))
        means.append(np.where(sizes > 0, sums / np.maximum(sizes, 1), np.nan))
    rows = zip(concepts.names, concepts.counts.tolist(), *(mean.tolist() for mean in means), strict=True)
    return [ConceptTemperature(*row) for row in rows if not np.isnan(row[2:]).any()]


def correlate_with_concepts(
    concepts: ImageConcepts, owners: np.ndarray, temperatures: Mapping[str, LearnedTemperatures], visits: Visits | None
) -> dict[str, dict[str, Correlation]]:
    """Correlate the temperatures, and ``log_u`` where there is one, with the number of images of the concept.

    Anchors of one concept are not independent and have the same number, so whole concepts are drawn for the interval.
    Of more than 100,000 anchors, a seeded sample of as many is taken.

    Args:
        concepts: of the images.
        owners: the image of each text.
        temperatures: of images ("image") and texts ("text").
        visits: with them, also the partial correlations given the number of visits, which a temperature follows
            whatever the anchor means.

    Returns:
        By kind, the correlations of "tau", "tau given visits", "log_u", and "log_u given visits".
    """
    found = {}
    for kind, each in temperatures.items():
        of_anchor = concepts.of_image[each.ids if kind == "image" else owners[each.ids]]
        part = _sample(np.flatnonzero(of_anchor != NO_CONCEPT))
        groups = of_anchor[part]
        found[kind] = {
            name + suffix: correlate(values[part], concepts.counts[groups], given, groups)
            for name, values in _quantities(each)
            for suffix, given in _conditions(visits, kind, each.ids[part])
        }
    return found


def correlate_with_visits(
    visits: Visits, owners: np.ndarray, temperatures: Mapping[str, LearnedTemperatures]
) -> dict[str, dict[str, Correlation]]:
    """Correlate the temperatures, and ``log_u`` where there is one, with the number of visits.

    Images with their texts are drawn for the interval. The arguments are those of :func:`correlate_with_concepts`.
    """
    found = {}
    for kind, each in temperatures.items():
        part = _sample(np.arange(len(each.ids)))
        ids = each.ids[part]
        groups = ids if kind == "image" else owners[ids]
        found[kind] = {
            name: correlate(values[part], visits.of(kind)[ids], groups=groups) for name, values in _quantities(each)
        }
    return found


def correlation_lines(title: str, found: Mapping[str, Mapping[str, Correlation]]) -> list[str]:
    """Return the lines of a table of correlations: a row for each kind, a column for each quantity."""
    heads = list(next(iter(found.values()), {}))
    lines = [title, f"  {'':8}" + "".join(f"{head:24}" for head in heads).rstrip()]
    for kind, each in found.items():
        number = next(iter(each.values())).num_points
        lines.append(f"  {kind + 's':8}" + "".join(f"{each[head]!s:24}" for head in heads) + f"{number:,} anchors")
    return lines


def correlations_as_json(found: Mapping[str, Mapping[str, Correlation]]) -> dict[str, Any]:
    """Return the values for a JSON file, with ``_`` for the blanks of names."""
    return {
        kind: {name.replace(" ", "_"): correlation.as_json() for name, correlation in each.items()}
        for kind, each in found.items()
    }


def _sample(places: np.ndarray) -> np.ndarray:
    """Return the places, or a seeded sample of them where they are many, ascending."""
    if len(places) <= _MOST_ANCHORS:
        return places
    return np.sort(np.random.default_rng(0).choice(places, _MOST_ANCHORS, replace=False))


def _quantities(each: LearnedTemperatures) -> list[tuple[str, np.ndarray]]:
    return [("tau", each.tau), *([] if each.log_u is None else [("log_u", each.log_u)])]


def _conditions(visits: Visits | None, kind: str, ids: np.ndarray) -> Iterator[tuple[str, np.ndarray | None]]:
    yield "", None
    if visits is not None:
        yield _GIVEN, visits.of(kind)[ids]
