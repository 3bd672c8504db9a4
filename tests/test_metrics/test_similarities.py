"""Dot products without rounding equal sums of fractions in every order and block."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from bimodal_cl.metrics import retrieval_ranks
from bimodal_cl.metrics.similarities import exact_similarities, pair_similarities
from tests.test_metrics.test_retrieval_recall import tiles


def unit_rows(num_rows, dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(num_rows, dim, generator=generator), dim=1)


def test_equals_the_sum_of_fractions():
    queries, candidates = unit_rows(3, 768), unit_rows(4, 768, seed=1)
    sims = exact_similarities(queries, candidates)
    assert sims.dtype == torch.float64
    for row, query in enumerate(queries.tolist()):
        for column, candidate in enumerate(candidates.tolist()):
            kept = [[Fraction(round(value * 2**26), 2**26) for value in each] for each in (query, candidate)]
            assert Fraction(sims[row, column].item()) == sum(a * b for a, b in zip(*kept, strict=True))
    torch.testing.assert_close(sims, queries.double() @ candidates.double().T, atol=1e-7, rtol=0)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [1, 3, 64, 513, 4096])
def test_the_place_of_a_row_changes_no_bit(dim, kind):
    queries, candidates = unit_rows(33, dim).to(kind), unit_rows(101, dim, seed=1).to(kind)
    if kind == torch.float64:
        queries, candidates = (torch.nn.functional.normalize(rows, dim=1) for rows in (queries, candidates))
    candidates[77] = candidates[100] = candidates[5]
    sims = exact_similarities(queries, candidates)
    order = torch.randperm(101, generator=torch.Generator().manual_seed(2))
    assert torch.equal(exact_similarities(queries, candidates[order]), sims[:, order])
    assert torch.equal(exact_similarities(queries[7:8], candidates[5:6]), sims[7:8, 5:6])
    assert torch.equal(sims[:, 77], sims[:, 5]) and torch.equal(sims[:, 100], sims[:, 5])
    assert torch.equal(exact_similarities(candidates, queries), sims.T)
    rows, columns = torch.meshgrid(torch.arange(33), order, indexing="ij")
    pairs = pair_similarities(queries, candidates, rows.flatten(), columns.flatten())
    assert torch.equal(pairs.view(33, 101), sims[:, order])


def test_rows_of_any_size():
    sizes = torch.logspace(-20, 20, 9)[:, None]
    rows = unit_rows(9, 16) * sizes
    expected = rows.double() @ rows.double().T
    torch.testing.assert_close(
        exact_similarities(rows, rows) / (sizes.double() @ sizes.double().T),
        expected / (sizes.double() @ sizes.double().T),
        atol=1e-7,
        rtol=0,
    )
    assert exact_similarities(torch.zeros(1, 4), unit_rows(2, 4)).tolist() == [[0.0, 0.0]]


def test_float64_keeps_its_precision():
    rows = torch.randn(20, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(exact_similarities(rows, rows), rows @ rows.T, atol=1e-12, rtol=1e-14)  # norms of 8


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_equal_features_tie_in_every_order_and_tile(kind):
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(60, 96)).astype(kind)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    texts[40:] = texts[:20]  # 20 texts that two images share
    images = (texts[:60] + 0.3 * rng.normal(size=texts.shape)).astype(kind)
    expected = retrieval_ranks(images, texts)
    assert (expected[1][:20] > 1).all() and (expected[1][40:] > 1).all()  # their text ties with the other's
    for seed, tile in enumerate(((1, 1), (7, 60), (33, 8), (1000, 1000))):
        order = np.random.default_rng(seed).permutation(60)
        with tiles(*tile):
            moved = retrieval_ranks(images[order], texts[order])
        assert moved[0].tolist() == expected[0][order].tolist() and moved[1].tolist() == expected[1][order].tolist()
