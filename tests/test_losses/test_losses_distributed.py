"""One, two and four gloo processes with the same global batch give what one process without a group gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bimodal_cl.distributed import ALL_GATHER
from tests.test_losses.linear_towers import (
    CASES,
    SWAPPED,
    compute_siglip_gradients,
    run_rank,
    spawn_ranks,
    take_rounded_step,
    train,
)

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore:.*rho")]

WORLD_SIZES = (4, 2, 1)
TOLERANCE = {"rtol": 1e-9, "atol": 1e-11, "equal_nan": True}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], dict[str, Any]]:
    """Results by (number of ranks, rank)."""
    return spawn_ranks(run_rank, WORLD_SIZES, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("case", CASES)
def test_ranks_change_nothing(results: dict, case: str, world_size: int) -> None:
    alone = train(case, rank=0, world_size=1)
    for rank in range(world_size):
        shared = results[world_size, rank][case]
        torch.testing.assert_close(shared["losses"], alone["losses"], **TOLERANCE)
        torch.testing.assert_close(shared["gradients"], alone["gradients"], **TOLERANCE)
        torch.testing.assert_close(shared["metrics"], alone["metrics"], **TOLERANCE)
        torch.testing.assert_close(shared["tables"], alone["tables"], **TOLERANCE)
        torch.testing.assert_close(shared["weights"], alone["weights"], **TOLERANCE)


@pytest.mark.parametrize("world_size", [2, 4])
def test_unlike_ranks_report_the_same_bits(results: dict, world_size: int) -> None:
    for rank in range(1, world_size):
        assert results[world_size, rank]["unlike"] == results[world_size, 0]["unlike"]


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("case", SWAPPED)
def test_which_rank_has_which_share_changes_nothing(results: dict, case: str, world_size: int) -> None:
    for rank in range(world_size):
        ranks = results[world_size, rank]
        for what in ("losses", "gradients", "tables", "weights"):
            torch.testing.assert_close(ranks["swapped", case][what], ranks[case][what], **TOLERANCE)


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_ranks_hold_the_same_bits(results: dict, case: str, world_size: int) -> None:
    """Tables and learned temperatures are kept on every rank and never exchanged, so they may not drift apart."""
    first = results[world_size, 0][case]
    for rank in range(1, world_size):
        for key, value in first["tables"].items():
            assert torch.equal(value.nan_to_num(), results[world_size, rank][case]["tables"][key].nan_to_num()), key
        assert first["losses"] == results[world_size, rank][case]["losses"]


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_siglip_equals_open_clips_on_as_many_ranks(results: dict, world_size: int) -> None:
    """open_clip exchanges texts between neighbours, ours gathers them: averaged over ranks, one global gradient."""
    alone = compute_siglip_gradients("ours", rank=0, world_size=1)
    for rank in range(world_size):
        for gradients in results[world_size, rank]["siglip gradients"].values():
            torch.testing.assert_close(gradients, alone, **TOLERANCE)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_ranks_change_nothing_with_bf16_products(results: dict, world_size: int) -> None:
    """Ranks exchange features rounded to bf16 and temperatures in float32. A rank's gradient is that of W losses."""
    alone = take_rounded_step(rank=0, world_size=1)
    steps = [results[world_size, rank]["rounded step"] for rank in range(world_size)]
    for step in steps:
        torch.testing.assert_close(step["loss"], alone["loss"], rtol=1e-5, atol=1e-6)
    for key in ("image_gradient", "text_gradient"):
        gradient = torch.cat([step[key] for step in steps]) / world_size
        torch.testing.assert_close(gradient, alone[key], rtol=1e-2, atol=1e-3 * alone[key].abs().max().item())


@pytest.mark.parametrize("world_size", [2, 4])
def test_collectives_of_a_step(results: dict, world_size: int) -> None:
    """Forward: the checks, the ids, features with temperatures, sums to the texts' owners, the means.

    Backward: weights and smooth maxima of all anchors, the temperature's gradient by direction. None of features.
    """
    for rank in range(world_size):
        assert results[world_size, rank]["collectives"] == {
            "forward": [ALL_GATHER] * 3 + ["all_to_all_single", "all_reduce"],
            "backward": [ALL_GATHER, "all_reduce", "all_reduce"],
        }


@pytest.mark.parametrize("world_size", [2, 4])
def test_every_rank_refuses_what_one_rank_gets_wrong(results: dict, world_size: int) -> None:
    for rank in range(world_size):
        refusals = results[world_size, rank]["refusals"]
        assert str([4 + r for r in range(world_size)]) in refusals["sizes"]
        assert f"rank {world_size - 1}" in refusals["nan"]
        assert "image id" in refusals["id"]
        last = f"on rank {world_size - 1}"
        assert refusals["empty"] == f"the batch is empty {last}"
        assert refusals["texts"].endswith(f"got 4, 3, 4 and 4 {last}")
        assert refusals["text ids"].endswith(f"got 4, 4, 4 and 3 {last}")
        assert refusals["ids"].endswith(f"got 4, 4, 3 and 3 {last}")
        assert refusals["width"].startswith("features must be matrices") and refusals["width"].endswith(last)
        assert "not positive" in refusals["tau"]
        assert "tables moved" not in refusals["tau"]
