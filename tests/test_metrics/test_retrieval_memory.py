"""Ranks among many images and captions need no matrix of all similarities, and equal those from the matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bimodal_cl.metrics import rank_queries
from bimodal_cl.metrics.similarities import exact_similarities
from bimodal_cl.scoring.uncertainty import resample_retrieval
from tests.benchmarks.measure.fresh_process import in_fresh_process
from tests.benchmarks.measure.peak_memory import PeakMemory, return_freed_memory
from tests.benchmarks.retrieval.memory import rank_by_matrix

IMAGES, CAPTIONS, DIM = 4000, 5, 64


def unit_rows(rows, dim, seed):
    features = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(features, dim=1)


def measure_growth(images, captions, dim):
    """Return the peak of ranking and of the intervals, in bytes above what was held before."""
    return_freed_memory()
    torch.set_num_threads(1)
    image_features, text_features = unit_rows(images, dim, 0), unit_rows(images * captions, dim, 1)
    owners = np.arange(images).repeat(captions)
    resample_retrieval(rank_queries(image_features[:50], text_features[:250], owners[:250]), owners[:250])
    with PeakMemory() as memory:
        resample_retrieval(rank_queries(image_features, text_features, owners), owners)
    return memory.peak


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_the_peak_is_far_below_the_matrix():
    matrix = 8 * IMAGES * IMAGES * CAPTIONS
    assert in_fresh_process(measure_growth, IMAGES, CAPTIONS, DIM) < matrix / 4


@pytest.mark.parametrize("noise", [0.3, 1.5])
def test_equals_the_whole_matrix(noise):
    """Of more images than a tile has, in a random order, with features that find some and miss some."""
    rng = np.random.default_rng(0)
    owners = rng.permutation(np.arange(2500).repeat(rng.integers(0, 4, 2500)))
    images = unit_rows(2500, 32, 2)
    texts = torch.nn.functional.normalize(images[owners] + noise * unit_rows(len(owners), 32, 3), dim=1)
    texts[-40:] = texts[:40]  # equal captions tie
    ranked = rank_queries(images, texts, owners)
    expected = rank_by_matrix(exact_similarities(images, texts).numpy(), owners)
    assert 0.05 < (ranked.image_ranks == 1).mean() < 0.999
    assert ranked.image_ranks.tolist() == expected.image_ranks.tolist()
    assert ranked.text_ranks.tolist() == expected.text_ranks.tolist()
    assert ranked.text_precisions == pytest.approx(expected.text_precisions, abs=1e-12)
