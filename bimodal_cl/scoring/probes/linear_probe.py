"""Train a linear probe on frozen features: the regularization is swept on validation images, then all are used.

Source: Radford et al. 2021, appendix A.3. Classes without a training image cannot be predicted: images of such a class
count as mistakes, and where images show several classes, its scores are constant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bimodal_cl.scoring.probes.logistic import LinearClassifier, LogisticProblem
from bimodal_cl.scoring.probes.sweep import Sweep, sweep_l2


@dataclass(frozen=True)
class LabelledPart:
    """The features and labels of the images of one part of a data set.

    Attributes:
        features: float32 ``[images, dim]``.
        targets: int64 ``[images]`` on the CPU, or 0 or 1 for every class ``[images, classes]``.
    """

    features: Tensor
    targets: Tensor

    def take(self, rows: np.ndarray) -> LabelledPart:
        """Return some of the images."""
        index = torch.from_numpy(rows)
        return LabelledPart(self.features[index.to(self.features.device)], self.targets[index])

    def join(self, other: LabelledPart) -> LabelledPart:
        """Return the images of both parts."""
        return LabelledPart(torch.cat([self.features, other.features]), torch.cat([self.targets, other.targets]))

    def classes(self) -> Tensor:
        """Return the classes that have images, ascending."""
        return self.targets.unique() if self.targets.ndim == 1 else self.targets.any(dim=0).nonzero().flatten()


@dataclass(frozen=True)
class Probe:
    """A trained linear probe.

    Attributes:
        classifier: of the classes that have training images.
        classes: int64, which these are, ascending.
        sweep: how its regularization was found.
    """

    classifier: LinearClassifier
    classes: Tensor
    sweep: Sweep


def train_probe(
    train: LabelledPart, val: LabelledPart, refit: bool = True, on_fit: Callable[[], object] = lambda: None
) -> Probe:
    """Sweep the regularization and train the probe.

    Args:
        train: what it learns from; two classes at least.
        val: what the regularization is chosen by.
        refit: whether the final probe learns from the validation images too.
        on_fit: called after each fit, at most ``sweep.NUM_FITS + 1`` times.
    """
    classes = train.classes()
    sweep = sweep_l2(
        train.features,
        _columns(train.targets, classes),
        val.features,
        _columns(val.targets, classes),
        len(classes),
        on_fit,
    )
    if not refit:
        return Probe(sweep.best, classes, sweep)
    both = train.join(val)
    known = both.classes()
    start = sweep.best if torch.equal(known, classes) else None
    problem = LogisticProblem(both.features, _columns(both.targets, known), len(known))
    classifier = problem.fit(sweep.best.l2, start)
    on_fit()
    return Probe(classifier, known, sweep)


def rank_classes(scores: Tensor, classes: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Rank the classes of images by scores; ties count against the right class, as in ``bimodal_cl.metrics``.

    Args:
        scores: ``[images, candidates]`` on the CPU.
        classes: int64 ``[candidates]``, the class of each column, ascending.
        targets: int64 ``[images]``, the class of each image.

    Returns:
        ``(ranks, predictions)``, int64 ``[images]``: the rank from 1 of the image's class, one more than there are
        candidates where it is none of them; and the predicted class: the image's own at rank 1, else the best other.
    """
    columns = torch.searchsorted(classes, targets).clamp(max=len(classes) - 1)
    known = classes[columns] == targets
    right = scores.gather(1, columns[:, None])
    ranks = torch.where(known, (scores >= right).sum(dim=1), len(classes) + 1).numpy()
    others = torch.where(known[:, None], scores.scatter(1, columns[:, None], -torch.inf), scores)
    best = classes.numpy()[others.numpy().argmax(axis=1)]  # numpy returns the first maximum, torch any of them
    return ranks, np.where(ranks == 1, targets.numpy(), best)


def score_sets(probe: Probe, test: LabelledPart) -> Tensor:
    """Return the scores of all classes, float64 ``[images, classes]``, for images that may show several."""
    scores = torch.zeros(test.targets.shape, dtype=torch.float64)
    scores[:, probe.classes] = probe.classifier.logits(test.features)
    return scores


def _columns(targets: Tensor, classes: Tensor) -> Tensor:
    """Return the targets by the place of their class among some classes; the number of these for any other class."""
    if targets.ndim == 2:
        return targets[:, classes]
    columns = torch.searchsorted(classes, targets).clamp(max=len(classes) - 1)
    return torch.where(classes[columns] == targets, columns, len(classes))
