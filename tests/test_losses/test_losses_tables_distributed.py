"""Sharded tables give what replicated ones give, on any number of ranks, before and after a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bimodal_cl.losses import LOSSES
from tests.test_losses.linear_towers import CASES, NUM_IMAGES, NUM_STEPS, NUM_TEXTS, spawn_ranks, train
from tests.test_losses.table_ranks import KINDS, MORE_STEPS, SAVED_ON, TABLE_CASES, may_have_tables, run_rank

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore:.*rho")]

WORLD_SIZES = (SAVED_ON, 2, 1)
TOLERANCE = {"rtol": 1e-9, "atol": 1e-11, "equal_nan": True}
SAME_BITS = {"rtol": 0, "atol": 0, "equal_nan": True}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], dict[Any, Any]]:
    """Results by (number of ranks, rank)."""
    return spawn_ranks(run_rank, WORLD_SIZES, tmp_path_factory.mktemp("tables"))


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", TABLE_CASES)
def test_ranks_and_kinds_change_nothing(results: dict, case: str, kind: str, world_size: int) -> None:
    alone = train(case, rank=0, world_size=1)
    for rank in range(world_size):
        shared = results[world_size, rank][case, kind]
        for what in ("losses", "gradients", "metrics", "tables", "weights"):
            torch.testing.assert_close(shared[what], alone[what], **TOLERANCE, msg=lambda text, what=what: what + text)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "replicated"])
@pytest.mark.parametrize("case", TABLE_CASES)
def test_kinds_agree_bit_for_bit(results: dict, case: str, kind: str, world_size: int) -> None:
    for rank in range(world_size):
        of = results[world_size, rank]
        for what in ("losses", "tables"):
            torch.testing.assert_close(of[case, kind][what], of[case, "replicated"][what], **SAME_BITS)


@pytest.mark.parametrize("world_size", [2, 1])
@pytest.mark.parametrize(
    ("before", "after"), [("sharded", "sharded"), ("sharded", "replicated"), ("replicated", "sharded")]
)
@pytest.mark.parametrize("case", TABLE_CASES)
def test_a_state_saved_on_four_goes_on_on_fewer(
    results: dict, case: str, before: str, after: str, world_size: int
) -> None:
    alone = train(case, rank=0, world_size=1, steps=range(NUM_STEPS + len(MORE_STEPS)))
    for rank in range(world_size):
        continued = results[world_size, rank][case, before, after]
        torch.testing.assert_close(continued["losses"], alone["losses"][NUM_STEPS:], **TOLERANCE)
        torch.testing.assert_close(continued["tables"], alone["tables"], **TOLERANCE)
        torch.testing.assert_close(continued["weights"], alone["weights"], **TOLERANCE)


def test_a_rank_keeps_its_rows_alone(results: dict) -> None:
    """Twelve bytes an anchor and modality, shared out: 40 images on 4 ranks are 10 rows of 3 columns each."""
    measured = [results[SAVED_ON, rank]["measured"] for rank in range(SAVED_ON)]
    assert [of["bytes"] for of in measured] == [12 * NUM_IMAGES // SAVED_ON] * SAVED_ON
    for rank, of in enumerate(measured):
        for name, rows in of["rows"].items():
            assert rows.dtype == torch.float32
            torch.testing.assert_close(rows, of["full"][name][rank::SAVED_ON], **SAME_BITS)
            torch.testing.assert_close(of["full"][name], measured[0]["full"][name], **SAME_BITS)
            torch.testing.assert_close(of["full"][name], of["state"][f"image_anchors.{name}"], **SAME_BITS)
    assert 0 < measured[0]["full"]["log_u"].isfinite().sum() < NUM_IMAGES


def test_the_state_is_gathered_on_one_rank(results: dict) -> None:
    measured = [results[SAVED_ON, rank]["measured"] for rank in range(SAVED_ON)]
    for key, holder in (("gathered on the first", 0), ("gathered on the last", SAVED_ON - 1)):
        torch.testing.assert_close(measured[holder][key], measured[0]["state"], **SAME_BITS)
        assert len(measured[holder][key]) == 6
        assert [of[key] for rank, of in enumerate(measured) if rank != holder] == [{}] * (SAVED_ON - 1)


@pytest.mark.parametrize("case", ["one owner", "fewer rows than ranks"])
def test_ranks_without_rows_of_the_batch_take_part(results: dict, case: str) -> None:
    for rank in range(SAVED_ON):
        of = results[SAVED_ON, rank]
        torch.testing.assert_close(of[case, "sharded"], of[case, "replicated"], **SAME_BITS)
    whole = results[SAVED_ON, 0]["one owner", "sharded"]["whole"]
    # Id 4 is brought 2, 4, 6, 8 by the four ranks and one more each in the second step: 0.5 + 5 + 6.
    assert whole.tolist() == [0.5 + 5 + 6 if i in (0, 4) else 0.5 + 10 + 11 if i == 8 else 0.5 for i in range(12)]


@pytest.mark.parametrize("world_size", [2, 4])
def test_every_rank_refuses(results: dict, world_size: int) -> None:
    for rank in range(world_size):
        refusals = results[world_size, rank]["refusals"]
        assert "text id" in refusals["id"] and f"outside the table of {NUM_TEXTS} rows" in refusals["id"]
        assert f"built on 1 process(es) and is used on {world_size}" in refusals["early"]


def test_every_name_with_tables_is_covered() -> None:
    assert {CASES[case][0] for case in TABLE_CASES} == {name for name in LOSSES if may_have_tables(name)}
