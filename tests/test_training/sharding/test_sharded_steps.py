"""Steps with sharded weights and moments (FSDP2) equal those with whole copies, in half the memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.test_losses.linear_towers import spawn_ranks
from tests.test_training.sharding.sharded_steps import CASES, TEXT, VIT, run_rank

pytestmark = pytest.mark.timeout(300)

# Weights move by up to 3e-3 in three steps. Sums of other order differ in the last digits, and so do convolutions of
# another memory layout (batch norms). Muon multiplies in bf16 and enlarges the smallest directions of a gradient, so
# its weights are not compared number by number.
CLOSE = {case: {"rtol": 1e-4, "atol": 1e-5} for case in CASES}
CLOSE |= {case: {"rtol": 1e-3, "atol": 1e-4} for case in CASES if "norms" in case or case == "muon"}
CLOSE |= {case: {"rtol": 2e-2, "atol": 1e-3} for case in CASES if "bf16" in case}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], dict[str, Any]]:
    """Results by (number of ranks, rank)."""
    return spawn_ranks(run_rank, (2,), tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", CASES)
def test_sharded_steps_equal_whole_ones(results: dict, case: str) -> None:
    """Losses, norms, weights, moments, the loss's learned temperature: all as without FSDP."""
    close = CLOSE[case]
    for rank in (0, 1):
        whole, sharded = (results[2, rank][case][kind] for kind in ("ddp", "fsdp"))
        for key in ("losses", "norms", "temperature"):
            assert sharded[key] == pytest.approx(whole[key], rel=close["rtol"], abs=close["atol"]), key
    assert results[2, 0][case]["fsdp"]["norms"] == results[2, 1][case]["fsdp"]["norms"]
    whole, sharded = (results[2, 0][case][kind] for kind in ("ddp", "fsdp"))
    if case != "muon":
        torch.testing.assert_close(sharded["weights"], whole["weights"], **close)


@pytest.mark.parametrize("case", CASES)
def test_the_optimizer_is_gathered_in_the_same_format(results: dict, case: str) -> None:
    whole, sharded = (results[2, 0][case][kind]["optimizer"] for kind in ("ddp", "fsdp"))
    assert sharded["param_groups"] == whole["param_groups"]
    assert sharded["state"].keys() == whole["state"].keys()
    for number, state in whole["state"].items():
        for name, value in state.items():
            other = sharded["state"][number][name]
            assert type(other) is type(value)
            if not isinstance(value, torch.Tensor):
                assert other == value
                continue
            assert (other.shape, other.dtype) == (value.shape, value.dtype)
            if "bf16" not in case:
                torch.testing.assert_close(other, value, **CLOSE[case])
    assert results[2, 1][case]["fsdp"]["optimizer"] == {}


def test_each_process_keeps_half(results: dict) -> None:
    for case in CASES:
        for rank in (0, 1):
            whole, sharded = (results[2, rank][case][kind]["kept"] for kind in ("ddp", "fsdp"))
            for what in ("parameters", "gradients", "moments"):
                assert 0.49 < sharded[what] / whole[what] < 0.52, (case, rank, what)


def test_units_are_blocks_and_towers(results: dict) -> None:
    assert results[2, 0]["vit"]["fsdp"]["units"] == VIT["layers"] + TEXT["layers"] + 2 + 1
    assert results[2, 0]["vit"]["ddp"]["units"] == 0
