"""The reliability diagram adds up the bins of a recipe's seeds, which need not be the same ones."""

import numpy as np
import pytest

from eval.report.classifier_section import add_up_bins


def bin_of(low, count, confidence, accuracy):
    return {"low": low, "high": low + 0.1, "count": count, "confidence": confidence, "accuracy": accuracy}


def test_seeds_may_have_other_bins():
    first = [bin_of(0.1, 10, 0.15, 0.1), bin_of(0.2, 30, 0.22, 0.3)]
    second = [bin_of(0.0, 4, 0.05, 0.5), bin_of(0.2, 10, 0.26, 0.7)]
    counts, confidences, accuracies = add_up_bins([first, second])
    assert counts.tolist() == [4, 10, 40]
    assert confidences == pytest.approx(np.array([0.05, 0.15, (30 * 0.22 + 10 * 0.26) / 40]))
    assert accuracies == pytest.approx(np.array([0.5, 0.1, (30 * 0.3 + 10 * 0.7) / 40]))
