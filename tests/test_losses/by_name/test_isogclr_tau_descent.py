"""The rules for individual temperatures: Adam against torch's, its bias correction, the falling step sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bimodal_cl.losses.rules.tau_descent import Adam, StepSize
from tests.reference.odds import compute_mean_excess, compute_odds
from tests.test_losses.agreement import build_double, take_step
from tests.test_losses.pair_batches import PairBatch, unit

NEGATIVES = [1, 2, 3]
RHO, GAMMA = 0.6, 0.5


@pytest.mark.parametrize("weights", [{}, {"adam_beta1": 0.5, "adam_beta2": 0.9, "adam_eps": 1e-3}])
def test_an_anchor_of_every_step_follows_torchs_adam(weights: dict[str, float]) -> None:
    """Its gradients are computed here from the odds, at torch's temperature; bounds are far, clipping takes place."""
    loss = build_double(
        "isogclr",
        {"tau_init": 0.3, "tau_min": 0.001, "rho": RHO, "gamma": GAMMA, "eta": 0.002, "tau_optimizer": "adam"}
        | weights,
    )
    betas = (weights.get("adam_beta1", 0.9), weights.get("adam_beta2", 0.999))
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([tau], lr=0.002, betas=betas, eps=weights.get("adam_eps", 1e-8))
    rng = np.random.default_rng(1)
    u, clipped = None, 0
    for step in range(40):
        images, texts = unit(rng.normal(size=(2, 4, 3)))
        if step % 10 == 9:  # the anchor loses against everybody: a gradient beyond the bound of 5
            texts[0], texts[1:] = -images[0], images[0]
        take_step(loss, PairBatch(images, texts, [0, 1, 2, 3], [0, 2, 4, 6]))
        sims = images @ texts.T
        g = compute_odds(sims, 0, NEGATIVES, tau.item()) / 3
        u = g if u is None else (1 - GAMMA) * u + GAMMA * g
        gradient = math.log(u) + RHO - g / u * compute_mean_excess(sims, 0, NEGATIVES, tau.item())
        clipped += abs(gradient) > 5
        tau.grad = torch.tensor(min(max(gradient, -5.0), 5.0), dtype=torch.float64)
        optimizer.step()
        assert loss.image_anchors.tau[0].item() == pytest.approx(tau.item(), rel=1e-10)
    assert clipped > 2
    assert loss.image_anchors.tau_updates[:5].tolist() == [40, 40, 40, 40, 0]
    assert abs(tau.item() - 0.3) > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9999), (0.9, 0.0)])
def test_adams_first_step_is_the_sign(dtype: torch.dtype, betas: tuple[float, float]) -> None:
    """Bias correction leaves ``g / |g|``, in float32 to its last digits also where ``1 - beta`` is small."""
    gradient = torch.tensor([[3.0], [-1e-3], [4.9]], dtype=dtype)
    adam = Adam(*betas, eps=1e-12)
    direction, state = adam(gradient, {name: torch.zeros_like(gradient) for name in adam.columns})
    torch.testing.assert_close(direction, gradient.sign(), rtol=1e-6 if dtype == torch.float32 else 1e-8, atol=0)
    assert state["tau_updates"].tolist() == [[1.0]] * 3


def test_each_anchor_counts_its_own_updates() -> None:
    """An anchor that comes late takes the step that it would have taken first."""
    late, early = (
        build_double("isogclr", {"tau_init": 0.3, "rho": RHO, "eta": 0.002, "tau_optimizer": "adam"}) for _ in range(2)
    )
    images, texts = unit(np.random.default_rng(4).normal(size=(2, 4, 3)))
    newcomers = PairBatch(images, texts, [5, 6, 7, 8], [10, 12, 14, 16])
    for _ in range(7):
        take_step(late, PairBatch(images, texts, [0, 1, 2, 3], [0, 2, 4, 6]))
    for loss in (late, early):
        take_step(loss, newcomers)
    torch.testing.assert_close(late.image_anchors.tau[5:9], early.image_anchors.tau[5:9], rtol=0, atol=0)
    torch.testing.assert_close(late.image_anchors.tau[5:9], 0.3 + 0.002 * torch.ones(4).double(), rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.03, 0.03, 0.03]),
        ("cosine", [0.03, 0.01 + 0.02 * math.sqrt(0.5), 0.01]),
        ("exp", [0.03, 0.01 + 0.02 * 0.2, 0.01 + 0.02 * 0.04]),
    ],
)
def test_step_sizes_at_the_beginning_the_middle_and_the_end(schedule: str, expected: list[float]) -> None:
    unused = {"constant": (1e-4, 0.00124), "cosine": (0.01, 0.00124), "exp": (0.01, 0.04)}[schedule]
    eta = StepSize(0.03, schedule, *unused)
    assert [eta.at(done) for done in (0.0, 0.5, 1.0)] == pytest.approx(expected, rel=1e-12)


def test_a_schedule_without_progress_is_warned_of_once() -> None:
    images, texts = unit(np.random.default_rng(4).normal(size=(2, 4, 3)))
    loss = build_double("isogclr", {"rho": 0.5, "eta_schedule": "cosine"})
    loss.progress = None
    with pytest.warns(UserWarning, match="eta is scheduled, but set_progress was never called"):
        take_step(loss, PairBatch(images, texts, [0, 1, 2, 3], [0, 2, 4, 6]))
