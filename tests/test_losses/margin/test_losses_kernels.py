"""The Triton kernels against PyTorch's operations, in Triton's interpreter, and the choice between the two."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch.nn.functional import normalize

from bimodal_cl.losses import build_loss
from bimodal_cl.losses.margin import torch_kernel as margin_torch
from bimodal_cl.losses.margin.kernels import choose_kernel, find_obstacle_to_triton, triton_agrees
from bimodal_cl.losses.margin.negatives import Negatives
from bimodal_cl.losses.margin.sums import GlobalBatch

ROOT = Path(__file__).parents[3]
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


@needs_triton
def test_kernels_agree_with_pytorch_in_the_interpreter() -> None:
    """Forward and gradient, ragged tiles, repeats, cosines of +-1 at temperature 0.005."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.test_losses.margin.kernels_in_interpreter"],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *results, choice = map(json.loads, done.stdout.splitlines())
    assert len(results) == 16
    for result in results:
        assert result["difference"] < (0.02 if "bf16" in result["case"] else 2e-5), result
    assert choice == {"agrees": True}


def small_batch(dtype: torch.dtype = torch.float32) -> GlobalBatch:
    x, y = normalize(torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=dtype), dim=-1)
    ids, tau = torch.arange(6), torch.full((6, 1), 0.1, dtype=dtype)
    return GlobalBatch(x, y, tau, tau, Negatives.of_global_batch(ids, ids, slice(0, 6)))


def test_the_choice_on_a_cpu() -> None:
    assert choose_kernel("auto", small_batch()) is margin_torch
    assert choose_kernel("torch", small_batch()) is margin_torch


def test_unknown_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user meets it, without the test run's type checks, which would refuse the literal first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    loss = build_loss("clip")
    loss.kernel = "cuda"
    with pytest.raises(ValueError, match=r"kernel='cuda' must be one of 'auto', 'torch', 'triton'"):
        loss(*small_batch()[:2], torch.arange(6), torch.arange(6))


@needs_triton
@pytest.mark.parametrize(
    ("dtype", "why"), [(torch.float32, "needs a GPU, not cpu"), (torch.float64, "not in torch.float64")]
)
def test_triton_is_refused_where_it_cannot_run(dtype: torch.dtype, why: str) -> None:
    assert why in find_obstacle_to_triton(small_batch(dtype).tau_images)
    loss = build_loss("clip")
    loss.kernel = "triton"
    x, y = small_batch(dtype)[:2]
    with pytest.raises(ValueError, match=f"kernel='triton' cannot run: .*{why}"):
        loss(x, y, torch.arange(6), torch.arange(6))


@needs_triton
def test_kernels_that_fail_are_not_used() -> None:
    """Compiled kernels cannot run on a CPU: one warning, and PyTorch."""
    triton_agrees.cache_clear()
    with pytest.warns(UserWarning, match="Triton kernels fail .* on cpu: the losses use PyTorch"):
        assert not triton_agrees(torch.device("cpu"), torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_agree_with_pytorch_on_a_gpu(dtype: torch.dtype, recwarn: pytest.WarningsRecorder) -> None:
    triton_agrees.cache_clear()
    assert triton_agrees(torch.device("cuda"), dtype), [str(warning.message) for warning in recwarn]
