"""The primitive: its gradient, its limits in tau, tiles, and both ends of float32."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from bimodal_cl.losses import LOSSES
from bimodal_cl.losses.margin import contrastive_margins
from tests.reference import ReferenceState
from tests.test_losses.agreement import CASES as TRANSCRIBED
from tests.test_losses.agreement import build_double, reference_step, take_step
from tests.test_losses.pair_batches import PairBatch, draw_batches, unit

pytestmark = pytest.mark.filterwarnings("ignore:.*rho")

SHARP = {
    "clip": ("clip", {"tau_init": 0.005, "tau_min": 0.005}),
    "siglip": ("siglip", {"tau_init": 0.005, "tau_min": 0.005}),
    "cyclip": ("cyclip", {"tau_init": 0.005, "tau_min": 0.005}),
    "macl": ("macl", {"tau_base": 0.005, "alpha": 0.0}),
    "macl-anchor": ("macl", {"tau_base": 0.005, "alpha": 0.0, "alignment": "anchor"}),
    "sogclr": ("sogclr", {"tau": 0.005}),
    "isogclr": ("isogclr", {"tau_init": 0.005, "tau_min": 0.005}),
    "isogclr-adam": ("isogclr", {"tau_init": 0.005, "tau_min": 0.005, "tau_optimizer": "adam"}),
    "rgcl_g": ("rgcl_g", {"tau_init": 0.005, "tau_min": 0.005, "gamma_schedule": "constant"}),
}


def example(batch_size: int = 7, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Features, ids (an image twice, a text twice) and different temperatures for all anchors, float64."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, batch_size, 4, generator=generator, dtype=torch.float64)
    features = torch.nn.functional.normalize(features, dim=-1)
    taus = 0.1 + torch.rand(2, batch_size, 1, generator=generator, dtype=torch.float64)
    image_ids, text_ids = torch.arange(batch_size), torch.arange(batch_size)
    image_ids[1], text_ids[-1] = image_ids[0], text_ids[2]
    return features[0], features[1], image_ids, text_ids, taus[0], taus[1]


@pytest.mark.parametrize("mask_repeats", [True, False])
@pytest.mark.parametrize("tile_size", [None, 3])
def test_gradcheck(tile_size: int | None, mask_repeats: bool) -> None:
    """Gradients in the features of both roles and in every anchor's own temperature."""
    image_features, text_features, image_ids, text_ids, tau_image, tau_text = example()

    def margins(x: Tensor, y: Tensor, tau_x: Tensor, tau_y: Tensor) -> tuple[Tensor, Tensor]:
        image, text = contrastive_margins(
            x, y, image_ids, text_ids, tau_x, tau_y, tile_size=tile_size, mask_repeats=mask_repeats
        )
        return image.margin, text.margin

    inputs = [t.requires_grad_() for t in (image_features, text_features, tau_image, tau_text)]
    assert torch.autograd.gradcheck(margins, inputs)


def test_slope_is_the_derivative_in_tau() -> None:
    """``dz_i/dtau_i = -e_i / tau_i``: what the temperature rule reads agrees with the margin's own gradient."""
    image_features, text_features, image_ids, text_ids, tau_image, tau_text = example()
    tau_image.requires_grad_()
    image, _ = contrastive_margins(image_features, text_features, image_ids, text_ids, tau_image, tau_text)
    (grad,) = torch.autograd.grad(image.margin.sum(), tau_image)
    torch.testing.assert_close(grad, -image.tau_slope / tau_image.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tile_size", [1, 2, 3, 7, 100])
def test_tiles_equal_dense(tile_size: int) -> None:
    """Temperatures below, at and above 1, so that no tile mistakes a masked pair for a negative."""
    for scale in (0.02, 1.0, 50.0):
        x, y, image_ids, text_ids, tau_image, tau_text = example(batch_size=11, seed=2)
        tau_image[0] = 1.0
        results = []
        for size in (None, tile_size):
            leaves = [t.clone().requires_grad_() for t in (x, y, tau_image * scale, tau_text * scale)]
            image, text = contrastive_margins(
                leaves[0], leaves[1], image_ids, text_ids, leaves[2], leaves[3], tile_size=size
            )
            weights = torch.linspace(0.1, 2.0, 11, dtype=torch.float64)[:, None]
            grads = torch.autograd.grad((image.margin * weights).sum() + (text.margin * weights**2).sum(), leaves)
            results.append((*image, *text, *grads))
        for dense, tiled in zip(*results, strict=True):
            torch.testing.assert_close(tiled, dense, rtol=1e-10, atol=1e-12)


def test_limits_of_tau() -> None:
    """Large tau: all negatives weigh the same. Small tau: the hardest one decides."""
    x, y, image_ids, text_ids, tau_image, tau_text = example(batch_size=9)
    sims = x @ y.T
    negative = (image_ids[:, None] != image_ids) & (text_ids[:, None] != text_ids)
    gaps = sims - sims.diagonal()[:, None]
    hot, _ = contrastive_margins(x, y, image_ids, text_ids, tau_image * 0 + 1e6, tau_text)
    mean_gap = (gaps * negative).sum(1, keepdim=True) / negative.sum(1, keepdim=True)
    torch.testing.assert_close(hot.log_mean_odds * 1e6, mean_gap, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(hot.num_negatives, negative.sum(1, keepdim=True).double())
    cold, _ = contrastive_margins(x, y, image_ids, text_ids, tau_image * 0 + 1e-4, tau_text)
    hardest = gaps.masked_fill(~negative, -torch.inf).amax(1, keepdim=True)
    torch.testing.assert_close(cold.margin * 1e-4, hardest, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(cold.tau_slope * 1e-4, hardest, rtol=1e-3, atol=1e-3)


def extreme_batches() -> list[PairBatch]:
    """Cosines of 1 and -1 only: all learned, all wrong (margins of +-400), all equal, and mixed."""
    direction = unit(np.ones((1, 4)))
    up, down = np.repeat(direction, 3, axis=0), -np.repeat(direction, 3, axis=0)
    ids = list(range(6))
    sides = np.concatenate([up, down])
    mixed = np.concatenate([up[:1], down[:2], up[:2], down[:1]])
    features = [(sides, sides), (sides, -sides), (np.concatenate([up, up]),) * 2, (sides, mixed)]
    return [PairBatch(x, y, ids, ids) for x, y in features]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4), 2)))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", SHARP)
def test_extremes(case: str, dtype: torch.dtype, order: tuple[int, int]) -> None:
    """tau 0.005 with cosines of +-1: finite everywhere, and the float64 values to the features' precision.

    bfloat16 holds these features exactly; the loss and the state are float32's, only the gradients are rounded to it.
    """
    name, hyper = SHARP[case]
    rtol = 2e-3 if dtype == torch.float32 else 1e-2
    loss = build_double(name, hyper).float()
    state = ReferenceState()
    for index in (*order, order[0]):
        batch = extreme_batches()[index]
        out, image_grad, text_grad = take_step(loss, batch, dtype=dtype)
        expected = reference_step(name, hyper, state, batch)
        state = expected.state
        assert out.loss.dtype == torch.float32
        assert image_grad.dtype == dtype
        np.testing.assert_allclose(out.loss.item(), expected.loss, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(image_grad.float().numpy(), expected.image_grad, rtol=rtol, atol=1e-3)
        np.testing.assert_allclose(text_grad.float().numpy(), expected.text_grad, rtol=rtol, atol=1e-3)
        for key, parameter in loss.named_parameters():
            np.testing.assert_allclose(parameter.grad, getattr(expected, f"{key}_grad"), rtol=2e-3, atol=1e-3)
        visited = torch.tensor(batch.image_ids)
        for key, value in loss.state_dict().items():
            rows = value[visited] if value.ndim else value
            assert rows.isfinite().all(), key


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_low_precision_features_are_taken_to_float32(name: str, dtype: torch.dtype) -> None:
    batch = next(draw_batches("random", 1, seed=4))
    loss, other = build_double(name, {}).float(), build_double(name, {}).float()
    out, image_grad, _ = take_step(loss, batch, dtype=dtype)
    rounded = PairBatch(
        torch.tensor(batch.image_features, dtype=dtype).double().numpy(),
        torch.tensor(batch.text_features, dtype=dtype).double().numpy(),
        batch.image_ids,
        batch.text_ids,
    )
    expected, _, _ = take_step(other, rounded, dtype=torch.float32)
    assert out.loss.dtype == torch.float32
    assert image_grad.dtype == dtype
    torch.testing.assert_close(out.loss, expected.loss, rtol=1e-6, atol=1e-7)


def test_every_transcribed_name_is_taken_to_its_extremes() -> None:
    assert {name for name, _ in SHARP.values()} == {name for name, _ in TRANSCRIBED.values()}
