"""What a loss reports beside its value: the KL of the weights, the averages, and what the temperatures do with them."""

from __future__ import annotations

import pytest
import torch

from tests.test_losses.agreement import build_double, take_step
from tests.test_losses.pair_batches import draw_batches

pytestmark = pytest.mark.filterwarnings("ignore:.*rho")


@pytest.mark.parametrize(("tau", "share"), [(1e3, 0.0), (0.3, None), (1e-5, 1.0)])
def test_the_reported_kl_is_of_the_weights_from_uniform_ones(tau: float, share: float | None) -> None:
    batch = next(draw_batches("random", 1, seed=3))
    out, _, _ = take_step(build_double("clip", {"tau_init": tau, "tau_min": 1e-6}, mask_repeats=False), batch)
    similarities = torch.tensor(batch.image_features @ batch.text_features.T)
    apart = similarities[~torch.eye(len(similarities), dtype=torch.bool)].view(len(similarities), -1)
    weights = (apart / tau).softmax(1)
    n = torch.tensor(float(apart.shape[1]))
    expected = (torch.xlogy(weights, weights).sum(1) + n.log()).mean()
    torch.testing.assert_close(out.metrics["kl_image"], expected, rtol=1e-9, atol=1e-9)
    if share is not None:
        assert out.metrics["kl_image"].item() == pytest.approx(share * n.log().item(), abs=1e-3)


def test_the_reported_log_u_is_of_the_anchors_averages() -> None:
    batch = next(draw_batches("random", 1, seed=3))
    loss = build_double("sogclr", {"tau": 0.3})
    out, _, _ = take_step(loss, batch)
    log_u = loss.state_dict()["image_anchors.log_u"][batch.image_ids]
    torch.testing.assert_close(out.metrics["log_u_image"], log_u.mean().double(), rtol=1e-6, atol=1e-6)


def test_individual_temperatures_descend_by_radius_minus_kl() -> None:
    """With gamma = 1 the derivative of the loss in the temperature is ``rho - KL``."""
    batch = next(draw_batches("random", 1, seed=3))
    options = {"tau_init": 0.3, "tau_max": 2.0, "gamma": 1.0, "rho": 0.2, "beta": 1.0, "eta": 0.01}
    loss = build_double("isogclr", options, mask_repeats=False)
    out, _, _ = take_step(loss, batch)
    after, _, _ = take_step(loss.eval(), batch)
    moved = after.metrics["tau_image"] - out.metrics["tau_image"]
    torch.testing.assert_close(moved, -0.01 * (0.2 - out.metrics["kl_image"]), rtol=1e-6, atol=1e-9)
