"""Measure how far a zero-shot classifier's probabilities can be believed, at its own temperature and at a fitted one.

Candidates compete by the softmax of ``sims / tau``. Temperature scaling needs labels, and the images that it was fitted
on would flatter it. So the images are halved, and each half is scored at the temperature fitted on the other
(two-fold cross-fitting). An image's half follows from its features and a seed, not from its place in the data.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from bimodal_cl.metrics.bootstrap import weighted_means
from bimodal_cl.metrics.calibration import (
    calibration_gaps,
    confidences,
    expected_calibration_error,
    fit_tau,
    reliability_bins,
)
from bimodal_cl.scoring.classifier import Classifier, candidate_similarities

SEED = 0


@dataclass(frozen=True)
class Calibration:
    """The confidences of a classifier.

    Attributes:
        tau: the model's own temperature.
        fitted_tau: fitted on all images, for use elsewhere; no score here depends on it.
        fold_taus: fitted on each half of the images, and used for the other.
        confidences: float64 ``[images]``, at ``tau``.
        fitted_confidences: float64 ``[images]``, at the other half's temperature.
        hits: bool ``[images]``.
    """

    tau: float
    fitted_tau: float
    fold_taus: tuple[float, float]
    confidences: np.ndarray
    fitted_confidences: np.ndarray
    hits: np.ndarray

    def scores(self) -> dict[str, float]:
        """Return ``ece`` and ``ece_fitted``, the expected calibration errors; fractions in ``[0, 1]``."""
        return {
            name: expected_calibration_error(reliability_bins(values, self.hits))
            for name, values in self._by_score().items()
        }

    def resample(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Return the same on resamples; see ``bimodal_cl.metrics.bootstrap``.

        Args:
            weights: int64 ``[resamples, images]``.
        """
        means = weighted_means(weights, self._gaps, np.ones(len(self.hits), dtype=np.int64))
        return dict(zip(self._by_score(), np.maximum(means, 0.0).T, strict=True))

    def details(self) -> dict[str, Any]:
        """Return what a result holds: the temperatures, and the bins of both that hold images."""
        return {
            "temperature": self.tau,
            "fitted_temperature": self.fitted_tau,
            "cross_fitted_temperatures": list(self.fold_taus),
            "bins": [asdict(each) for each in reliability_bins(self.confidences, self.hits)],
            "bins_fitted": [asdict(each) for each in reliability_bins(self.fitted_confidences, self.hits)],
        }

    @cached_property
    def _gaps(self) -> np.ndarray:
        return np.stack([calibration_gaps(values, self.hits) for values in self._by_score().values()], axis=1)

    def _by_score(self) -> dict[str, np.ndarray]:
        return {"ece": self.confidences, "ece_fitted": self.fitted_confidences}


def calibrate(
    classifier: Classifier, image_features: Tensor, targets: Tensor, ranks: np.ndarray, tau: float, seed: int = SEED
) -> Calibration | None:
    """Measure the calibration of images of one class each.

    Args:
        classifier: from ``build_classifier``.
        image_features: float32 ``[images, dim]``.
        targets: int64 ``[images]``, the class of each.
        ranks: int64 ``[images]``, from 1, the rank of each image's class.
        tau: the model's temperature, above 0.
        seed: of the halves.

    Returns:
        The calibration; None for a single image, which cannot be halved.
    """
    if len(targets) < 2:
        return None
    sims = candidate_similarities(classifier, image_features)
    wanted = classifier.candidate_of_class[targets].numpy()
    first = _first_half(image_features, seed)
    taus = fit_tau(sims[first], wanted[first]), fit_tau(sims[~first], wanted[~first])
    fitted = np.empty(len(sims))
    fitted[first] = confidences(sims[first], taus[1])
    fitted[~first] = confidences(sims[~first], taus[0])
    return Calibration(tau, fit_tau(sims, wanted), taus, confidences(sims, tau), fitted, ranks == 1)


def _first_half(image_features: Tensor, seed: int) -> np.ndarray:
    """Return which images are in the first half, bool ``[images]``."""
    rows = image_features.cpu().numpy()
    keys = [hashlib.sha256(str(seed).encode() + row.tobytes()).digest() for row in rows]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    first = np.zeros(len(rows), dtype=bool)
    first[order[: len(rows) // 2]] = True
    return first
