"""Unit-norm features that scatter around a direction for each class."""

from __future__ import annotations

import numpy as np
import torch

from bimodal_cl.scoring.probes.linear_probe import LabelledPart


def draw_clusters(counts, dim=16, spread=0.6, seed=0, directions_seed=99):
    """Return float32 features and int64 targets with a number of images for each class."""
    directions = np.random.default_rng(directions_seed).normal(size=(len(counts), dim))
    targets = np.repeat(np.arange(len(counts)), counts)
    noise = np.random.default_rng(seed).normal(size=(len(targets), dim))
    features = torch.from_numpy(directions[targets] + spread * noise * 2 + 2).float()
    return torch.nn.functional.normalize(features, dim=1), torch.from_numpy(targets)


def draw_part(counts, **options):
    """Return them as a part of a data set."""
    return LabelledPart(*draw_clusters(counts, **options))
