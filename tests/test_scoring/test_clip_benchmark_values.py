"""Scores equal those that CLIP_benchmark 1.6.2 gave for the same features, as recorded here.

They were recorded from its functions ``zeroshot_retrieval.evaluate`` and ``zeroshot_classification.evaluate`` with
``amp=False`` on the CPU, with towers that return the features made here; no two of their similarities are equal.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bimodal_cl.metrics import mean_average_precision, retrieval_recall
from bimodal_cl.scoring.classifier import build_classifier, class_similarities, classify, score_classification

CLASSES = "abcdefg"
TARGETS = np.arange(120) ** 2 % 11 % 7  # the last class has no image


def spread(rows, columns, seed):
    """Return values between -0.5 and 0.5 by integer arithmetic, so that they are the same everywhere."""
    numbers = (np.arange(rows * columns, dtype=np.int64) + seed) * 1_000_003 % 10_007
    return numbers.reshape(rows, columns) / 10_007 - 0.5


def as_features(values):
    return torch.tensor(values / np.linalg.norm(values, axis=1, keepdims=True)).float()


CENTRES = spread(7, 6, 3)
IMAGES = as_features(spread(120, 6, 4) + 0.6 * CENTRES[TARGETS])


class Prompts(nn.Module):
    """A text tower for prompts that end in a class: those that begin with ``b`` lie beside those with ``a``."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def encode_text(self, texts):
        beside = 0.4 * spread(7, 6, 9)
        centres = CENTRES / np.linalg.norm(CENTRES, axis=1, keepdims=True)
        rows = [
            centres[CLASSES.index(text[-1])] + text.startswith("b") * beside[CLASSES.index(text[-1])] for text in texts
        ]
        return as_features(np.stack(rows))


def test_retrieval_with_several_captions():
    images = spread(40, 6, 1)
    owners = np.sort(np.concatenate([np.arange(40), np.arange(50) * 7 % 40]))
    found = retrieval_recall(as_features(images), as_features(spread(90, 6, 2) + images[owners]), owners)
    assert found == pytest.approx(
        {
            "image_retrieval_recall@1": 0.1666666716337204,
            "text_retrieval_recall@1": 0.17499999701976776,
            "image_retrieval_recall@5": 0.5555555820465088,
            "text_retrieval_recall@5": 0.5249999761581421,
            "image_retrieval_recall@10": 0.7222222089767456,
            "text_retrieval_recall@10": 0.75,
        },
        abs=1e-6,
    )


@pytest.mark.parametrize(
    ("templates", "recorded"),
    [
        (["a {c}"], {"acc1": 0.2833333333333333, "acc5": 0.925, "mean_per_class_recall": 0.28174603174603174}),
        (["a {c}", "b {c}"], {"acc1": 0.3, "acc5": 0.925, "mean_per_class_recall": 0.2976190476190476}),
    ],
)
def test_classification_by_one_and_by_several_prompts(templates, recorded):
    classifier = build_classifier(Prompts(), list(CLASSES), templates)
    targets = torch.from_numpy(TARGETS)
    ranks, predictions = classify(classifier, IMAGES, targets)
    scores = score_classification(ranks, predictions, targets.numpy(), classifier.num_candidates)
    assert scores == pytest.approx(recorded, abs=1e-6)


def test_classification_of_images_with_several_classes():
    images = np.arange(120)
    shown = np.stack([(images * (k + 2) + k) % (k + 3) == 0 for k in range(7)], axis=1).astype(np.int64)
    classifier = build_classifier(Prompts(), list(CLASSES), ["a {c}"])
    found = mean_average_precision(class_similarities(classifier, IMAGES), shown)
    assert found == pytest.approx(0.24655099213123322, abs=1e-6)
