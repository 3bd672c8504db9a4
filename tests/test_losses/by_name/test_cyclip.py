"""CyCLIP's terms from matrices of the features' width: precision where pairs are aligned, and under autocast."""

import pytest
import torch
from torch.nn.functional import normalize

from bimodal_cl.losses import build_loss


def features(noise: float, batch_size: int = 256, dim: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = normalize(torch.randn(batch_size, dim, generator=generator, dtype=torch.float64), dim=1)
    texts = images + noise * torch.randn(batch_size, dim, generator=generator, dtype=torch.float64) / dim**0.5
    return images, normalize(texts, dim=1)


@pytest.mark.parametrize("noise", [1.0, 0.03, 0.001])
def test_nothing_cancels_where_pairs_are_aligned(noise: float) -> None:
    exact = [each.float().double() for each in features(noise)]
    ids = torch.arange(256)
    gradients, values = [], []
    for dtype in (torch.float64, torch.float32):
        images, texts = (each.to(dtype).requires_grad_() for each in exact)
        both = build_loss("cyclip", tau_init=1.0, lambda_in_modal=1e3, lambda_cross_modal=2e3)
        both = both.double() if dtype == torch.float64 else both
        plain = build_loss("clip", tau_init=1.0)
        plain = plain.double() if dtype == torch.float64 else plain
        cyclic = both(images, texts, ids, ids).loss - plain(images, texts, ids, ids).loss
        gradients.append(torch.cat(torch.autograd.grad(cyclic, (images, texts))).double())
        values.append(cyclic.item())
    assert values[1] == pytest.approx(values[0], rel=1e-5, abs=1e-5)
    error = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    assert error < 2e-5


@pytest.mark.parametrize("name", ["clip", "siglip", "cyclip", "isogclr"])
def test_a_backward_pass_inside_of_autocast_rounds_nothing(name: str) -> None:
    gradients = []
    for autocast in (False, True):
        images, texts = (each.float().requires_grad_() for each in features(0.5, 40, 16))
        ids = torch.arange(40)
        loss = build_loss(name, num_images=40, num_texts=40, **({"rho": 1.0} if name == "isogclr" else {}))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss(images, texts, ids, ids).loss.backward()
        gradients.append(torch.cat([images.grad, texts.grad]))
    assert torch.equal(*gradients)
