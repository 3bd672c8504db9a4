"""The benchmarks of losses run at tiny sizes and print complete rows, and peak memory is measured correctly."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bimodal_cl.losses import LOSSES
from tests.benchmarks.__main__ import BENCHMARKS, main
from tests.benchmarks.measure.fresh_process import ProcessKilled, in_fresh_process
from tests.benchmarks.measure.peak_memory import PeakMemory, return_freed_memory
from tests.benchmarks.measure.timing import time_in_turn
from tests.test_benchmarks.conftest import rows_of

ROOT = Path(__file__).parents[2]
MEBIBYTE = 2**20

# A peer in the shape of the paper's code: a mean over anchors of -log P / (1 - P), the denominator not differentiated.
MACL_PY = """
def MACL(pos, neg, tau_0, alpha, A0):
    tau = tau_0 * (1 + alpha * (pos.detach().mean() - A0))
    log_p = -((neg / tau).logsumexp(dim=1) - pos[:, 0] / tau).exp().log1p()
    return (-log_p / -log_p.detach().expm1()).mean()
"""


def test_losses_prints_a_row_for_every_loss_and_peer(bench, tmp_path):
    (tmp_path / "macl.py").write_text(MACL_PY)
    shown = bench("losses", "--quick", "--threads", "1", "--macl-repo", str(tmp_path))
    for loss in LOSSES:
        rows = rows_of(shown, f"{loss}, B = 128")
        assert any(name.startswith("ours") for name in rows)
        for name, cells in rows.items():
            if cells == ["not in this version"]:  # of the installed open_clip
                continue
            time, _, time_ratio, _, _, _, cosine = cells
            assert re.fullmatch(r"[1-9][\d.]* (us|ms|s)", time), (name, time)
            assert float(time_ratio) > 0
            if loss in ("clip", "macl"):
                assert float(cosine) == pytest.approx(1, abs=1e-5), name
    assert "open_clip ClipLoss" in rows_of(shown, "clip, B = 128")
    assert "MACL MACL" in rows_of(shown, "macl, B = 128")
    assert "LibAUC (--libauc-repo)" in shown  # named as absent


def test_state_prints_every_part(bench):
    rows = rows_of(bench("state", "--quick", "--threads", "1"), "isogclr: N = 10000")
    assert {"whole step, dense", "state, 10000 rows", "state, 64 rows", "state, clip without tables"} <= set(rows)
    assert all(re.fullmatch(r"[1-9][\d.]* (us|ms|s)", cells[0]) for cells in rows.values() if len(cells) == 3)


def test_retrieval_memory_prints_its_peak_and_equals_the_matrix(bench):
    shown = bench("retrieval_memory", "--quick", "--threads", "1")
    assert re.search(r"peak of the process +[1-9][\d.]* (MiB|GiB)", shown)
    rows = rows_of(shown, "200 images x 1,000 captions")
    assert rows["whole matrix, same similarities"][-2:] == ["0 of 1,200", "0 of 200"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["losses", "--macl-repo", "nowhere"], "--macl-repo nowhere: no macl.py there, which MACL has"),
        (["losses", "--rows", "sparse"], "--rows sparse: no row has this in its name"),
        (["losses", "--losses", "isoglcr"], "unknown loss 'isoglcr'; did you mean 'isogclr'?"),
        (["lossess"], "unknown NAME 'lossess'; did you mean 'losses'?"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_command_lists_the_benchmarks():
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in BENCHMARKS)


def allocate(sizes: list[int], together: bool) -> tuple[int | None, int | None]:
    """Return peak and held bytes of allocating and writing blocks of some MiB, kept together or dropped one by one."""
    return_freed_memory()
    torch.zeros(64 * MEBIBYTE, dtype=torch.uint8).add_(1)  # reusing its memory would hide an allocation
    with PeakMemory() as memory:
        kept = []
        for size in sizes:
            block = torch.ones(size * MEBIBYTE, dtype=torch.uint8)
            if together:
                kept.append(block)
            del block
    return memory.peak, memory.held


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(("together", "peak", "held"), [(True, 56, 56), (False, 32, 0)])
def test_peak_memory_of_known_allocations(together, peak, held):
    measured_peak, measured_held = in_fresh_process(allocate, [24, 32], together)
    assert measured_peak / MEBIBYTE == pytest.approx(peak, abs=2)  # includes code and page tables
    assert measured_held / MEBIBYTE == pytest.approx(held, abs=2)


def test_time_in_turn_alternates_and_stops_late_rounds():
    order: list[str] = []
    times = time_in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=5, seconds=0)
    assert order == ["a", "b"] * 3
    assert all(len(rounds) == 3 and min(rounds) > 0 for rounds in times.values())


def test_a_killed_process_is_named():
    with pytest.raises(ProcessKilled, match="_exit was killed"):
        in_fresh_process(os._exit, 1)
