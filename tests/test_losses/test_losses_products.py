"""bf16 products: close to float64 where bf16 allows it, finite everywhere, and float32 in all that is remembered."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from bimodal_cl.losses.margin import contrastive_margins
from bimodal_cl.losses.margin.products import add_product_, multiply_
from bimodal_cl.losses.module.registry import LOSS_SETTINGS
from tests.test_losses.agreement import build_double, take_step
from tests.test_losses.brute_force import weigh
from tests.test_losses.pair_batches import PairBatch, draw_batches
from tests.test_losses.test_losses_margin import SHARP, extreme_batches

pytestmark = pytest.mark.filterwarnings("ignore:.*rho")
WITH_PRODUCTS = [name for name, settings in LOSS_SETTINGS.items() if "products" in settings.model_fields]
SHARP_WITH_PRODUCTS = [case for case, (name, _) in SHARP.items() if name in WITH_PRODUCTS]


def step(x: Tensor, y: Tensor, tau: float, **options: object) -> tuple[Tensor, Tensor, Tensor]:
    """Margins, slopes and the images' gradient."""
    x = x.detach().requires_grad_()
    ids, taus = torch.arange(len(x)), torch.full((len(x), 1), tau, dtype=x.dtype)
    image, text = contrastive_margins(x, y, ids, ids, taus, taus, **options)
    (gradient,) = torch.autograd.grad(weigh((image.margin, text.margin)), x)
    return image.margin.detach().double(), image.tau_slope.double(), gradient.double()


@pytest.mark.parametrize("tile_size", ["auto", None, 48])
@pytest.mark.parametrize("tau", [0.2, 0.05, 0.01])
def test_close_to_float64(tau: float, tile_size: int | str | None) -> None:
    """Similarities are off by at most 2e-3 and usually by 3e-4, margins by that over the temperature."""
    generator = torch.Generator().manual_seed(0)
    x, y = normalize(torch.randn(2, 200, 128, generator=generator, dtype=torch.float64), dim=-1)
    y = normalize(y + x, dim=-1)
    margin, slope, gradient = step(x, y, tau)
    low_margin, low_slope, low_gradient = step(x.float(), y.float(), tau, products="bf16", tile_size=tile_size)
    error = (low_margin - margin) * tau
    assert 1e-6 < error.abs().max() < 2e-3
    assert error.square().mean().sqrt() < 5e-4
    assert ((low_slope - slope) * tau).abs().max() < 6e-3
    assert (low_gradient - gradient).norm() < 1e-3 / tau * gradient.norm()


def test_float64_stays_float64() -> None:
    x, y = normalize(torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64), dim=-1)
    assert all(map(torch.equal, step(x, y, 0.1), step(x, y, 0.1, products="bf16")))


@pytest.mark.parametrize("case", SHARP_WITH_PRODUCTS)
def test_extremes(case: str) -> None:
    """tau 0.005 with cosines of +-1, whose factors bf16 can hold: what float32 products give.

    Gradients are differences of terms of up to 1 / (6 tau), of which the repelling one is rounded to bf16.
    """
    rounding = 2**-8 / (6 * 0.005)
    low, full = build_pair(case)
    for batch in extreme_batches():
        out, image_grad, text_grad = take_step(low, batch, dtype=torch.float32)
        expected, right_image_grad, right_text_grad = take_step(full, batch, dtype=torch.float32)
        torch.testing.assert_close(out.loss, expected.loss, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(image_grad, right_image_grad, rtol=0, atol=rounding)
        torch.testing.assert_close(text_grad, right_text_grad, rtol=0, atol=rounding)
    assert_finite_float32(low, full)


@pytest.mark.parametrize("case", SHARP_WITH_PRODUCTS)
def test_nearly_equal_features(case: str) -> None:
    """tau 0.005 with cosines near +-1, which bf16 cannot tell apart: still finite."""
    generator = torch.Generator().manual_seed(2)
    low, full = build_pair(case)
    for _ in range(3):
        sign = torch.randn(2, 10, 1, generator=generator).sign()
        x, y = normalize(sign * (1 + 1e-3 * torch.randn(2, 10, 7, generator=generator)), dim=-1).numpy()
        batch = PairBatch(x, y, list(range(10)), list(range(10)))
        for loss in (low, full):
            out, *gradients = take_step(loss, batch, dtype=torch.float32)
            assert out.loss.isfinite()
            assert all(gradient.isfinite().all() for gradient in gradients)
    assert_finite_float32(low, full)


def build_pair(case: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The loss with bf16 products and with float32 ones."""
    name, hyper = SHARP[case]
    return build_double(name, hyper, products="bf16").float(), build_double(name, hyper).float()


def assert_finite_float32(low: torch.nn.Module, full: torch.nn.Module) -> None:
    for key, value in low.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value.isfinite(), full.state_dict()[key].isfinite())


@pytest.mark.parametrize("name", WITH_PRODUCTS)
def test_every_loss_takes_them(name: str) -> None:
    """Not the same bits as with float32 products, but nearly the same loss."""
    batch = next(draw_batches("random", 1, seed=4))
    low, full = build_double(name, {}, products="bf16").float(), build_double(name, {}).float()
    out, *gradients = take_step(low, batch, dtype=torch.float32)
    expected, *right = take_step(full, batch, dtype=torch.float32)
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
    assert not torch.equal(gradients[0], right[0])
    torch.testing.assert_close(out.loss, expected.loss, rtol=0.1, atol=0.05)


def test_products_of_every_type() -> None:
    generator = torch.Generator().manual_seed(3)
    left, right = torch.randn(4, 6, generator=generator), torch.randn(6, 5, generator=generator)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 5e-2)):
        total = torch.ones(4, 5, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
        exact = left.double() @ right.double()
        product = multiply_(torch.empty_like(total), left.to(dtype), right.to(dtype))
        torch.testing.assert_close(
            product.double(), left.to(dtype).double() @ right.to(dtype).double(), rtol=1e-2, atol=1e-2
        )
        summed = add_product_(total, left.to(total.dtype), right.to(dtype))
        assert summed is total
        torch.testing.assert_close(summed.double(), exact + 1, rtol=0, atol=tolerance)
