"""SigLIP against open_clip's loss, with repeats and a single pair (ranks: ``test_losses_distributed.py``)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from open_clip.loss import SigLipLoss
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from bimodal_cl.losses import build_loss
from tests.test_losses.agreement import build_double, take_step
from tests.test_losses.pair_batches import PairBatch, draw_batches, unit

BIAS = {"bias_init": -3.0}


def open_clip_step(batch: PairBatch, loss: nn.Module) -> tuple[Tensor, ...]:
    """open_clip's value and its gradients in both features, scale and bias, at the parameters of ours."""
    inputs = [
        torch.tensor(batch.image_features, requires_grad=True),
        torch.tensor(batch.text_features, requires_grad=True),
        loss.logit_scale.detach().clone().requires_grad_(),
        loss.logit_bias.detach().clone().requires_grad_(),
    ]
    value = SigLipLoss()(inputs[0], inputs[1], inputs[2].exp(), inputs[3])
    return value.detach(), *torch.autograd.grad(value, inputs)


@pytest.mark.parametrize("tile_size", [None, 4])
def test_equals_open_clips(tile_size: int | None) -> None:
    for batch in draw_batches("aligning", 8, seed=8):
        loss = build_double("siglip", BIAS, mask_repeats=False, tile_size=tile_size)
        out, image_grad, text_grad = take_step(loss, batch)
        actual = (out.loss.detach(), image_grad, text_grad, loss.logit_scale.grad, loss.logit_bias.grad)
        for mine, theirs in zip(actual, open_clip_step(batch, loss), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_initial_values_are_open_clips() -> None:
    loss = build_double("siglip", {})
    assert loss.logit_scale.item() == pytest.approx(np.log(10), rel=1e-15)
    assert loss.logit_bias.item() == -10.0


def test_repeats_are_left_out_and_nothing_else() -> None:
    """The loss without masking, less the terms of the pairs that share an image or a caption."""
    rng = np.random.default_rng(3)
    features = unit(rng.normal(size=(2, 6, 5)))
    batch = PairBatch(features[0], features[1], [0, 0, 1, 2, 3, 3], [0, 1, 2, 2, 6, 6])
    false_negatives = [(0, 1), (2, 3), (4, 5)]
    masked, _, _ = take_step(build_double("siglip", BIAS), batch)
    everything, _, _ = take_step(build_double("siglip", BIAS, mask_repeats=False), batch)
    logits = torch.tensor(features[0] @ features[1].T) * 10 - 3
    left_out = sum(-logsigmoid(-logits[i, j]) - logsigmoid(-logits[j, i]) for i, j in false_negatives) / 6
    torch.testing.assert_close(masked.loss, everything.loss - left_out, rtol=1e-12, atol=1e-12)


def test_a_repeat_gets_no_gradient_from_its_other_occurrence() -> None:
    """Two captions of one image and nothing else: each pair pulls itself together and leaves the other alone."""
    images, texts = unit(np.random.default_rng(0).normal(size=(2, 2, 4)))
    loss = build_double("siglip", BIAS)
    _, image_grad, _ = take_step(loss, PairBatch(images, texts, [4, 4], [8, 9]))
    pull = torch.sigmoid(-torch.tensor((images * texts).sum(1) * 10 - 3)) * 10 / 2
    torch.testing.assert_close(image_grad, -pull[:, None] * torch.tensor(texts), rtol=1e-12, atol=1e-12)


def test_a_single_pair_still_asks_whether_it_matches() -> None:
    x, y = unit(np.array([[1.0, 2.0]])), unit(np.array([[2.0, 1.0]]))
    out, _, _ = take_step(build_double("siglip", BIAS), PairBatch(x, y, [3], [7]))
    assert out.loss.item() == pytest.approx(np.log1p(np.exp(-(0.8 * 10 - 3))), rel=1e-12)
    assert out.metrics["anchors_without_negatives"].item() == 1


@pytest.mark.parametrize("mask_repeats", [True, False])
@pytest.mark.parametrize("tile_size", [None, 3])
def test_gradcheck(tile_size: int | None, mask_repeats: bool) -> None:
    batch = next(batch for batch in draw_batches("random", 20, seed=2) if len(batch.image_ids) == 7)
    loss = build_loss("siglip", bias_init=-1.0, tau_init=0.3, tile_size=tile_size, mask_repeats=mask_repeats).double()
    ids = torch.tensor(batch.image_ids), torch.tensor(batch.text_ids)

    def value(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        parameters = {"logit_scale": scale, "logit_bias": bias}
        return torch.func.functional_call(loss, parameters, (x, y, *ids)).loss

    inputs = [torch.tensor(features, requires_grad=True) for features in (batch.image_features, batch.text_features)]
    inputs += [parameter.detach().clone().requires_grad_() for parameter in loss.parameters()]
    assert torch.autograd.gradcheck(value, inputs)
