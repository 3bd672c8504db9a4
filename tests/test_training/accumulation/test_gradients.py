"""Steps with ``train.accumulate_features`` have the gradients of one batch, on one and on two processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.test_losses.linear_towers import spawn_ranks
from tests.test_training.accumulation.small_towers import (
    COMPARED,
    NUM_MICRO_BATCHES,
    WITHOUT_DROPOUT,
    run_rank,
    take_steps,
    take_steps_with_graphs,
)

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore:.*rho")]

WORLD_SIZES = (2, 1)
EXACT = {"rtol": 1e-9, "atol": 1e-11, "equal_nan": True}
FLOAT32 = {"rtol": 1e-5, "atol": 1e-7, "equal_nan": True}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], dict[str, Any]]:
    """Results by (number of ranks, rank)."""
    return spawn_ranks(run_rank, WORLD_SIZES, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("name", COMPARED)
def test_steps_equal_those_with_all_graphs(results: dict, name: str, world_size: int) -> None:
    """With dropout: a micro-batch draws the same in both of its passes, and what it draws in the one with a graph."""
    for rank in range(world_size):
        cached, graphs = (results[world_size, rank][key]["steps"] for key in (name, f"{name}, graphs"))
        torch.testing.assert_close(cached, graphs, **(FLOAT32 if name == "bf16" else EXACT))


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("case", WITHOUT_DROPOUT)
def test_steps_equal_those_of_the_whole_batch(results: dict, case: str, world_size: int) -> None:
    whole = results[1, 0][f"{case} without dropout, 1"]
    for rank in range(world_size):
        cached = results[world_size, rank][f"{case} without dropout, {NUM_MICRO_BATCHES}"]
        torch.testing.assert_close(cached["steps"], whole["steps"], **EXACT)


@pytest.mark.parametrize("case", WITHOUT_DROPOUT)
def test_gradients_are_exchanged_once_a_step(results: dict, case: str) -> None:
    counts = [results[2, 0][f"{case} without dropout, {k}"]["exchanged"] for k in (1, NUM_MICRO_BATCHES)]
    assert counts[0] == counts[1] > 0


def test_dropout_matters_here(results: dict) -> None:
    dropped, whole = (results[1, 0][name]["steps"]["gradients"][0][0] for name in ("clip", "clip without dropout, 1"))
    assert (dropped - whole).norm() > 0.1 * whole.norm()


def test_ranks_hold_the_same_bits(results: dict) -> None:
    for name in COMPARED:
        first, second = (results[2, rank][name]["steps"]["gradients"] for rank in (0, 1))
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_a_step_leaves_the_random_state_that_one_pass_leaves() -> None:
    take_steps("clip", 0, 1)
    after = torch.get_rng_state()
    take_steps_with_graphs("clip", 0, 1)
    assert torch.equal(after, torch.get_rng_state())
