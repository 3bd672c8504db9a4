"""Say what became of every query of an evaluation, compactly, so that models can be compared later from files.

The arrays are those that accuracies, recalls and ranks are computed from, see ``bimodal_cl.scoring.uncertainty``, so
these scores, their intervals and paired comparisons follow from them exactly. Calibration errors and accuracies by
training frequency need more than the arrays hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

CLASSES, RETRIEVAL = "classes", "retrieval"


@dataclass(frozen=True)
class Outcomes:
    """What became of every query.

    Attributes:
        kind: ``"classes"`` or ``"retrieval"``, which says how scores follow from the arrays.
        arrays: of ``classes``, the arguments of ``resample_classes``; of ``retrieval``, ``image_ranks [texts]``,
            ``text_ranks`` and ``text_precisions`` (both of the images that have captions) and ``image_of_text
            [texts]``.
        data: a hash of the queries, see :func:`hash_queries`; only outcomes with the same one may be compared.
    """

    kind: str
    arrays: Mapping[str, np.ndarray]
    data: str

    def compact(self) -> dict[str, np.ndarray]:
        """Return the arrays with integers in as few bytes as their values need."""
        return {
            name: array.astype(np.result_type(*map(np.min_scalar_type, (array.min(initial=0), array.max(initial=0)))))
            if array.dtype.kind in "iu"
            else array
            for name, array in self.arrays.items()
        }


def hash_queries(right: np.ndarray, names: Iterable[str] = ()) -> str:
    """Return a SHA-256 of what was asked: the right answer of every query, and the texts that tell data sets apart.

    Args:
        right: int64, the class of every image, or the image of every caption.
        names: captions or class names, in their order.
    """
    found = hashlib.sha256(np.ascontiguousarray(right, dtype=np.int64).tobytes() + repr(right.shape).encode())
    for name in names:
        found.update(b"\0" + name.encode("utf-8", "surrogatepass"))
    return found.hexdigest()
