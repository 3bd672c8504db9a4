"""Closed-form facts, invariances and the life of the state, which hold for any numbers."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from bimodal_cl.losses import LOSSES
from tests.reference import ReferenceState
from tests.test_losses.agreement import (
    CASES,
    assert_tables_match,
    build_double,
    build_loss,
    reference_step,
    take_step,
)
from tests.test_losses.pair_batches import NUM_IMAGES, NUM_TEXTS, PairBatch, draw_batches, unit

pytestmark = [pytest.mark.filterwarnings("ignore:.*rho"), pytest.mark.filterwarnings("ignore:.*is scheduled")]


def snapshot(loss: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of everything that a resume needs."""
    return {key: value.detach().clone() for key, value in loss.state_dict().items()}


def assert_same_state(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Bit for bit, not-a-number included."""
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, rtol=0, atol=0, equal_nan=True, msg=key)


def test_clip_is_cross_entropy() -> None:
    for batch in draw_batches("random", 5, seed=8):
        loss = build_double("clip", {"tau_init": 0.2}, mask_repeats=False)
        out, image_grad, text_grad = take_step(loss, batch)
        x = torch.tensor(batch.image_features, requires_grad=True)
        y = torch.tensor(batch.text_features, requires_grad=True)
        logits = x @ y.T * loss.logit_scale.detach().exp()
        target = torch.arange(len(batch.image_ids))
        expected = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        expected.backward()
        torch.testing.assert_close(out.loss, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(image_grad, x.grad, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(text_grad, y.grad, rtol=1e-10, atol=1e-12)


def test_clip_temperature_is_held_above_its_bound() -> None:
    loss = build_double("clip", {"tau_init": 0.07, "tau_min": 0.02})
    with torch.no_grad():
        loss.logit_scale.fill_(10.0)
    out, _, _ = take_step(loss, next(draw_batches("random", 1)))
    assert out.metrics["tau_image"].item() == pytest.approx(0.02, rel=1e-12)


def test_macl_gradient_scale_is_one_for_learned_pairs() -> None:
    """Two learned pairs in float32: ``P = 1``, yet each margin's gradient arrives whole.

    With ``x_0 = y_0 = v`` and ``x_1 = y_1 = -v``, ``dL/dx_0 = (y_1 - y_0) / (2 tau) = -v / tau``.
    """
    direction = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    features = torch.cat([direction, -direction]).requires_grad_()
    candidates = features.detach().clone().requires_grad_()
    loss = build_loss("macl", tau_base=0.01, alpha=0.0)
    out = loss(features, candidates, torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert out.loss.item() == pytest.approx(1.0)
    out.loss.backward()
    torch.testing.assert_close(features.grad, -features.detach() / 0.01, rtol=1e-6, atol=0)
    torch.testing.assert_close(candidates.grad, -features.detach() / 0.01, rtol=1e-6, atol=0)


def test_macl_gradient_is_that_of_the_mean_margin() -> None:
    batch = next(batch for batch in draw_batches("random", 20, seed=2) if len(batch.image_ids) > 8)
    loss = build_double("macl", {"tau_base": 0.1, "alpha": 0.7}, mask_repeats=False)
    out, image_grad, _ = take_step(loss, batch)
    x = torch.tensor(batch.image_features, requires_grad=True)
    sims = x @ torch.tensor(batch.text_features).T
    tau = 0.1 * (1 + 0.7 * sims.detach().diagonal().mean())
    torch.testing.assert_close(out.metrics["tau_text"], tau, rtol=1e-9, atol=0)
    eye = torch.eye(len(sims), dtype=torch.bool)
    margins = [(s / tau).masked_fill(eye, -torch.inf).logsumexp(1) - s.diagonal() / tau for s in (sims, sims.T)]
    (torch.stack(margins).mean()).backward()
    torch.testing.assert_close(image_grad, x.grad, rtol=1e-8, atol=1e-10)


def test_macl_tau_follows_the_alignment() -> None:
    """Aligned pairs are given a larger temperature than misaligned ones."""
    loss = build_double("macl", {"tau_base": 0.1, "alpha": 0.5, "alignment": "anchor", "mu": 0.5})
    up = np.array([[1.0, 0.0], [0.0, 1.0]])
    batches = [PairBatch(up, up, [0, 1], [0, 1]), PairBatch(up, up[::-1].copy(), [0, 1], [0, 1])]
    taus = [take_step(loss, batch)[0].metrics["tau_image"].item() for batch in batches]
    assert taus == pytest.approx([0.15, 0.125], rel=1e-7)
    assert loss.image_anchors.alignment[:2].tolist() == pytest.approx([0.5, 0.5])


def test_temperatures_follow_from_the_tables() -> None:
    """What a report computes from a checkpoint's columns: MACL's rule, iSogCLR's own column, nothing for SogCLR."""
    own_text = {"text_tau_base": 0.05, "text_alpha": 0.25, "alignment_base": -0.1}
    settings = build_double("macl", {"alignment": "anchor", **own_text}).settings
    columns = {"alignment": np.array([0.4, np.nan, -0.1])}
    np.testing.assert_allclose(settings.own_tau("image", columns), [0.125, np.nan, 0.1], rtol=1e-12)
    np.testing.assert_allclose(settings.own_tau("text", columns), [0.05625, np.nan, 0.05], rtol=1e-12)
    columns = {"tau": np.array([0.02, 0.03])}
    assert build_double("isogclr", {}).settings.own_tau("text", columns) is columns["tau"]
    assert build_double("sogclr", {}).settings.own_tau("text", {"log_u": np.zeros(2)}) is None


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("name", ["sogclr", "isogclr", "rgcl_g"])
def test_gamma_falls_over_the_first_half(name: str, progress: float) -> None:
    hyper = {"gamma": 0.3, "gamma_schedule": "cosine"}
    loss, state = build_double(name, hyper), ReferenceState()
    loss.set_progress(progress)
    for batch in draw_batches("random", 4, seed=9):
        out, _, _ = take_step(loss, batch)
        expected = reference_step(name, hyper, state, batch, progress=progress)
        state = expected.state
        np.testing.assert_allclose(out.loss.item(), expected.loss, rtol=1e-10)
    assert_tables_match(loss, state, name, hyper)


@pytest.mark.parametrize("progress", [0.0, 0.05, 0.1, 0.3, 0.7])
@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("sogclr", {"gamma": 0.3, "gamma_warmup": 0.2}),
        ("isogclr", {"gamma": 0.3, "gamma_warmup": 0.2, "eta_warmup": 0.1, "rho": 0.7}),
        ("isogclr", {"eta_schedule": "exp", "eta_warmup": 0.4, "rho": 0.7, "gamma_schedule": "cosine"}),
        ("rgcl_g", {"gamma_warmup": 0.4}),
    ],
)
def test_gamma_and_eta_warm_up(name: str, hyper: dict, progress: float) -> None:
    loss, state = build_double(name, hyper), ReferenceState()
    loss.set_progress(progress)
    for batch in draw_batches("random", 4, seed=9):
        out, _, _ = take_step(loss, batch)
        expected = reference_step(name, hyper, state, batch, progress=progress)
        state = expected.state
        np.testing.assert_allclose(out.loss.item(), expected.loss, rtol=1e-10)
    assert_tables_match(loss, state, name, hyper)


def test_a_warm_up_begins_with_the_batch_alone_and_with_temperatures_at_rest() -> None:
    hyper = {"gamma_warmup": 0.5, "eta_warmup": 0.5, "rho": 0.7}
    warm, batch_alone = (
        build_double("isogclr", hyper),
        build_double("isogclr", {"gamma": 1.0, "rho": 0.7, "eta": 1e-30}),
    )
    batches = list(draw_batches("random", 3, seed=9))
    for loss in (warm, batch_alone):
        loss.set_progress(0.0)
        for batch in batches:
            take_step(loss, batch)
    assert torch.equal(warm.image_anchors.log_u, batch_alone.image_anchors.log_u)
    assert (warm.image_anchors.tau == warm.settings.tau_init).all()
    assert warm.settings.scheduled() == ("gamma", "eta")


def test_rho_fraction_is_that_share_of_the_log_of_the_negatives() -> None:
    """Four pairs without repeats have three negatives each, whatever the batch was written for."""
    features = unit(np.random.default_rng(0).normal(size=(2, 4, 5)))
    batch = PairBatch(features[0], features[1], [0, 1, 2, 3], [0, 2, 4, 6])
    loss = build_double("isogclr", {"rho_fraction": 0.5, "tau_init": 0.1})
    hyper = {"rho": 0.5 * np.log(3.0), "tau_init": 0.1}
    out, _, _ = take_step(loss, batch)
    expected = reference_step("isogclr", hyper, ReferenceState(), batch)
    assert out.loss.item() == pytest.approx(expected.loss, rel=1e-10)
    assert_tables_match(loss, expected.state, "isogclr", hyper)


def swap_hyper(name: str, hyper: dict[str, Any]) -> dict[str, Any]:
    """Images' hyperparameters for texts and the other way round."""
    if name != "macl":
        return hyper
    swapped = dict(hyper)
    for knob, default in (("tau_base", 0.1), ("alpha", 0.5), ("alignment_base", 0.0)):
        image = hyper.get(knob, default)
        swapped[knob], swapped[f"text_{knob}"] = hyper.get(f"text_{knob}", image), image
    return swapped


@pytest.mark.parametrize("case", CASES)
def test_swapping_the_modalities_swaps_the_results(case: str) -> None:
    name, hyper = CASES[case]
    loss = build_double(name, hyper)
    other = build_loss(name, num_images=NUM_TEXTS, num_texts=NUM_IMAGES, **swap_hyper(name, hyper)).double()
    for batch in draw_batches("aligning", 6, seed=13):
        out, image_grad, text_grad = take_step(loss, batch)
        swapped, swapped_image_grad, swapped_text_grad = take_step(other, batch.swapped())
        torch.testing.assert_close(swapped.loss, out.loss, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(swapped_image_grad, text_grad, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(swapped_text_grad, image_grad, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(swapped.metrics["tau_text"], out.metrics["tau_image"], rtol=1e-11, atol=0)
    mine, theirs = snapshot(loss), snapshot(other)
    exchange = {"image_anchors": "text_anchors", "text_anchors": "image_anchors"}
    for key, value in mine.items():
        modality, _, column = key.partition(".")
        partner = f"{exchange[modality]}.{column}" if modality in exchange else key
        torch.testing.assert_close(theirs[partner], value, rtol=1e-9, atol=1e-11, equal_nan=True)


@pytest.mark.parametrize("case", CASES)
def test_order_of_the_batch_changes_nothing(case: str) -> None:
    """Repeated ids included: the last write is no better than the first."""
    name, hyper = CASES[case]
    loss, other = build_double(name, hyper), build_double(name, hyper)
    rng = np.random.default_rng(21)
    for batch in draw_batches("random", 6, seed=17):
        order = rng.permutation(len(batch.image_ids))
        out, image_grad, text_grad = take_step(loss, batch)
        permuted, permuted_image_grad, permuted_text_grad = take_step(other, batch.permuted(order))
        torch.testing.assert_close(permuted.loss, out.loss, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(permuted_image_grad, image_grad[order], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(permuted_text_grad, text_grad[order], rtol=1e-9, atol=1e-11)
    for key, value in snapshot(loss).items():
        torch.testing.assert_close(snapshot(other)[key], value, rtol=1e-9, atol=1e-11, equal_nan=True)


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("siglip")])
def test_single_pair_does_nothing(case: str) -> None:
    """No negatives: loss 0, zero gradients, nothing moves, before and after other steps.

    (Not so for ``siglip``, where a positive contributes without negatives, too: ``test_losses_siglip.py``.)
    """
    loss = build_double(*CASES[case])
    single = PairBatch(unit(np.array([[1.0, 2.0]])), unit(np.array([[2.0, 1.0]])), [3], [7])
    for batches in ([], list(draw_batches("random", 3, seed=1))):
        for batch in batches:
            take_step(loss, batch)
        before = snapshot(loss)
        out, image_grad, text_grad = take_step(loss, single)
        assert out.loss.item() == 0.0
        assert not image_grad.any()
        assert not text_grad.any()
        assert all(not parameter.grad.any() for parameter in loss.parameters())
        assert_same_state(snapshot(loss), before)


@pytest.mark.parametrize("case", CASES)
def test_evaluation_leaves_the_state_alone(case: str) -> None:
    """``eval()`` gives the loss that a training step would report, and remembers nothing of it."""
    name, hyper = CASES[case]
    loss, state = build_double(name, hyper), ReferenceState()
    *batches, last = draw_batches("random", 5, seed=23)
    for batch in batches:
        take_step(loss, batch)
        state = reference_step(name, hyper, state, batch).state
    loss.eval()
    before = snapshot(loss)
    for _ in range(2):
        out, _, _ = take_step(loss, last)
        assert out.loss.item() == pytest.approx(reference_step(name, hyper, state, last).loss, rel=1e-9)
    assert_same_state(snapshot(loss), before)


@pytest.mark.parametrize("case", CASES)
def test_state_survives_a_file(case: str) -> None:
    """Everything is in ``state_dict``: a loss loaded from a file goes on bit for bit."""
    name, hyper = CASES[case]
    loss = build_loss(name, num_images=NUM_IMAGES, num_texts=NUM_TEXTS, **hyper)
    *batches, last, final = draw_batches("random", 6, seed=29)
    for batch in batches:
        take_step(loss, batch, dtype=torch.float32)
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    loaded = build_loss(name, num_images=NUM_IMAGES, num_texts=NUM_TEXTS, **hyper)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert_same_state(snapshot(loaded), snapshot(loss))
    for batch in (last, final):
        out, image_grad, _ = take_step(loss, batch, dtype=torch.float32)
        again, image_grad_again, _ = take_step(loaded, batch, dtype=torch.float32)
        assert torch.equal(out.loss, again.loss)
        assert torch.equal(image_grad, image_grad_again)
    assert_same_state(snapshot(loaded), snapshot(loss))


EXPECTED_KEYS = {
    "clip": {"logit_scale"},
    "macl": set(),
    "macl-anchor": {"image_anchors.alignment", "text_anchors.alignment"},
    "sogclr": {"image_anchors.log_u", "text_anchors.log_u"},
    "isogclr": {f"{m}_anchors.{column}" for m in ("image", "text") for column in ("log_u", "tau", "tau_grad")},
    "isogclr-adam": {
        f"{m}_anchors.{column}"
        for m in ("image", "text")
        for column in ("log_u", "tau", "tau_grad", "tau_grad_square", "tau_updates")
    },
    "siglip": {"logit_scale", "logit_bias"},
    "cyclip": {"logit_scale"},
    "rgcl_g": {"logit_scale", "image_anchors.log_u", "text_anchors.log_u"},
}


@pytest.mark.parametrize("case", EXPECTED_KEYS)
def test_state_dict_names(case: str) -> None:
    """Checkpoints and reports read these names."""
    name, hyper = CASES[case]
    loss = build_loss(name, num_images=NUM_IMAGES, num_texts=NUM_TEXTS, **hyper)
    assert set(loss.state_dict()) == EXPECTED_KEYS[case]
    assert {value.dtype for value in loss.state_dict().values()} <= {torch.float32}


def test_unvisited_anchors() -> None:
    loss = build_loss("isogclr", num_images=3, num_texts=5, tau_init=0.25, rho=1.0)
    assert loss.image_anchors.log_u.tolist() == [-np.inf] * 3
    assert loss.text_anchors.tau.tolist() == [0.25] * 5
    assert loss.text_anchors.tau_grad.tolist() == [0.0] * 5
    anchors = build_loss("macl", num_images=3, num_texts=5, alignment="anchor").image_anchors
    assert anchors.alignment.isnan().tolist() == [True] * 3


def test_names() -> None:
    """Configs and checkpoints hold these names; a loss added later comes after them."""
    assert LOSSES[:7] == ("clip", "siglip", "cyclip", "macl", "sogclr", "isogclr", "rgcl_g")


def test_a_loss_says_its_name_and_hyperparameters():
    assert repr(build_loss("sogclr", num_images=2, num_texts=2, tau=0.2)).startswith("ContrastiveLoss(")
    assert "name='sogclr', tau=0.2, gamma=0.8" in repr(build_loss("sogclr", num_images=2, num_texts=2, tau=0.2))
