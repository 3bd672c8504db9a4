"""Score a model on a run's validation data: retrieval on pairs, zero-shot classification on labelled images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bimodal_cl.data.labelled.images import LabelledImages
from bimodal_cl.models import DualEncoder
from bimodal_cl.scoring.retrieval import evaluate_retrieval, retrieval_scores
from bimodal_cl.scoring.zero_shot import evaluate_zero_shot, zero_shot_scores


class Evaluation:
    """Scores of a model on the config's validation data, read with this process alone.

    Args:
        open_pairs: opens the stream of the pairs; None: there are none.
        labelled: labelled images; None likewise.
        score_features: scores the heads of locked towers on pairs that are encoded already, in place of `open_pairs`.
    """

    def __init__(
        self,
        open_pairs: Any,
        labelled: LabelledImages | None,
        score_features: Callable[[Any], dict[str, float]] | None = None,
    ) -> None:
        self._open_pairs, self._labelled, self._score_features = open_pairs, labelled, score_features

    @property
    def scores(self) -> list[str]:
        """Names of the scores that every evaluation gives."""
        names = []
        if self._open_pairs is not None or self._score_features is not None:
            names += [f"retrieval/{name}" for name in retrieval_scores()]
        if self._labelled is not None:
            names += [f"zero_shot/{name}" for name in zero_shot_scores(self._labelled)]
        return names

    def __call__(self, model: DualEncoder) -> dict[str, float]:
        """Return scores by name, ``retrieval/...`` and ``zero_shot/...``.

        ``retrieval/left_out`` counts images that could not be used, if there were any.
        """
        scores: dict[str, float] = {}
        if self._score_features is not None:
            scores |= {f"retrieval/{name}": value for name, value in self._score_features(model).items()}
        if self._open_pairs is not None:
            pairs = self._open_pairs()
            retrieval = evaluate_retrieval(model, pairs)
            scores |= {f"retrieval/{name}": value for name, value in retrieval.items()}
            if pairs.report().total:
                scores["retrieval/left_out"] = float(pairs.report().total)
        if self._labelled is not None:
            zero_shot = evaluate_zero_shot(model, self._labelled)
            scores |= {f"zero_shot/{name}": value for name, value in zero_shot.items()}
        return scores
