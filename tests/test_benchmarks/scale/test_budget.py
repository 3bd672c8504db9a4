"""The formulas of docs/scale.md give the bytes that two and four gloo processes send and keep."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.benchmarks.scale.budget import (
    list_loss_transfers,
    list_signal_transfers,
    list_weight_transfers,
    table_bytes,
    weight_bytes,
)
from tests.test_benchmarks.scale.measured_steps import STEP, STEPS, counted, loss_runs, run_rank
from tests.test_losses.linear_towers import spawn_ranks

pytestmark = pytest.mark.timeout(300)
WORLD_SIZES = (4, 2)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], dict[str, Any]]:
    """Measurements by (number of ranks, rank)."""
    return spawn_ranks(run_rank, WORLD_SIZES, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("ranks", WORLD_SIZES)
@pytest.mark.parametrize("name", loss_runs(2))
def test_collectives_and_tables_of_a_loss(measured: dict, name: str, ranks: int) -> None:
    run = loss_runs(ranks)[name]
    for rank in range(ranks):
        assert Counter(measured[ranks, rank][name]["counts"]) == counted(list_loss_transfers(run))
    kept = [measured[ranks, rank][name]["tables"] for rank in range(ranks)]
    assert max(kept) == table_bytes(run)
    if run.sharded_tables:  # the last ranks may have a row less
        assert sum(kept) == table_bytes(replace(run, sharded_tables=False))


@pytest.mark.parametrize("ranks", WORLD_SIZES)
@pytest.mark.parametrize("name", STEPS)
def test_collectives_and_weights_of_a_step(measured: dict, name: str, ranks: int) -> None:
    fsdp, kept = name != "ddp", {}
    for rank in range(ranks):
        found = measured[ranks, rank][f"step: {name}"]
        rows = ranks if fsdp else 1  # shards are cut along the first dimension, which is padded
        parameters = sum(math.ceil(shape[0] / rows) * rows * size // shape[0] for shape, size in found["sizes"])
        buffers = 0 if fsdp else found["buffers"]
        run = replace(STEP, ranks=ranks, parameters=parameters, buffers=buffers, **STEPS[name])
        of_loss, others = counted(list_loss_transfers(run)), [*list_weight_transfers(run), *list_signal_transfers(run)]
        rest = Counter(found["counts"]) - of_loss
        assert not of_loss - Counter(found["counts"])
        for kind in {kind for kind, _ in rest} | {transfer.kind for transfer in others}:
            sent = sum(size * times for (of_kind, size), times in rest.items() if of_kind == kind)
            assert sent == sum(each.size * each.times for each in others if each.kind == kind), kind
        plain = sum(size for _, size in found["sizes"]) + 1  # and the temperature
        assert found["kept"] == pytest.approx(weight_bytes(replace(run, parameters=plain)), rel=0.03 if fsdp else 0)
        kept[rank] = found["kept"]
    if fsdp:  # parts of unlike size, the temperature on each rank
        assert sum(kept.values()) == weight_bytes(replace(run, fsdp=False, parameters=plain - 1 + ranks))
