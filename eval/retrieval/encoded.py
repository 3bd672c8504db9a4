"""Read pairs that ``bimodal-prep encode`` has encoded, to score the heads of locked towers without the towers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimodal_cl.errors import UserError

from ..captions import iterate_captions
from ..encode import ScoredModel, autocast_type

if TYPE_CHECKING:
    from bimodal_cl.data import Manifest
    from bimodal_cl.data.features.tables import FeatureTables
    from bimodal_cl.data.shards.faults import FaultCounts
    from bimodal_cl.scoring.retrieval import PairFeatures


@dataclass(frozen=True)
class EncodedPairs:
    """The features of a data set, and its captions.

    Args:
        tables: the features.
        captions: in the order of ``text_id``.
    """

    tables: FeatureTables
    captions: list[str]

    @classmethod
    def open(cls, folder: Path, data: Manifest) -> EncodedPairs:
        """Open the features of some shards.

        Raises:
            UserError: the folder has none of these shards.
        """
        from bimodal_cl.data.features.manifest import find_features
        from bimodal_cl.data.features.tables import FeatureTable, FeatureTables
        from bimodal_cl.data.shards.mixture import Mixture

        found = find_features(folder, [data], "--features")
        tables = FeatureTables([FeatureTable(found[0])])
        return cls(tables, [text for _, _, texts in iterate_captions(Mixture([data])) for text in texts])

    def encode(self, model: ScoredModel, precision: str) -> tuple[PairFeatures, FaultCounts]:
        """Project all features by the heads of a model, in a ``--precision``.

        Raises:
            UserError: its heads were trained on other towers' features.
        """
        from bimodal_cl.data.shards.faults import FaultCounts
        from bimodal_cl.models.features.heads import FeatureHeads
        from bimodal_cl.scoring.retrieval import encode_features

        heads, first = model.encoder, self.tables.first
        assert isinstance(heads, FeatureHeads)
        if heads.towers.sha256 != first.towers_sha256:
            raise UserError(
                f"--features {first.folder.parent}: was encoded by other towers than those of {model.checkpoint}, in "
                f"{heads.towers.folder}"
            )
        faults = FaultCounts()
        faults.add(first.num_images, first.unusable)
        return encode_features(heads, self.tables, self.captions, autocast_type(precision)), faults

    def describe(self) -> dict[str, Any]:
        """Return what the results record about the features."""
        first = self.tables.first
        return {"folder": str(first.folder), "towers_sha256": first.towers_sha256}
