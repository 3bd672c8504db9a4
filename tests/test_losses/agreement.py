"""Run a loss and its transcription, and compare everything that they return and remember."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from bimodal_cl.losses import build_loss
from tests.reference import ReferenceState, ReferenceStep, compute_step
from tests.test_losses.pair_batches import NUM_IMAGES, NUM_TEXTS, PairBatch

RTOL = 1e-10
ATOL = 1e-12

# Every hyperparameter away from its default at least once.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": ("clip", {}),
    "clip-sharp": ("clip", {"tau_init": 0.02, "tau_min": 0.02}),
    "siglip": ("siglip", {}),
    "siglip-sharp": ("siglip", {"tau_init": 0.03, "tau_min": 0.03, "bias_init": -3.0}),
    "cyclip": ("cyclip", {}),
    "cyclip-in-modal": ("cyclip", {"lambda_in_modal": 0.7, "lambda_cross_modal": 0.0, "tau_init": 0.3}),
    "cyclip-cross-modal": ("cyclip", {"lambda_in_modal": 0.0, "lambda_cross_modal": 1.5, "tau_min": 0.06}),
    "macl": ("macl", {}),
    "macl-own-text": (
        "macl",
        {"alpha": 1.0, "text_tau_base": 0.05, "text_alpha": 0.25, "text_alignment_base": 0.3, "alignment_base": -0.1},
    ),
    "macl-unweighted": ("macl", {"reweight": False, "alignment_base": 0.5}),
    "macl-anchor": ("macl", {"alignment": "anchor"}),
    "macl-anchor-own-text": (
        "macl",
        {"alignment": "anchor", "mu": 0.4, "alpha": 0.8, "text_tau_base": 0.2, "text_alpha": 0.1, "reweight": False},
    ),
    "sogclr": ("sogclr", {}),
    "sogclr-slow": ("sogclr", {"tau": 0.1, "gamma": 0.3}),
    "isogclr": ("isogclr", {}),
    "isogclr-settling": (
        "isogclr",
        {"rho": 0.7, "tau_init": 0.05, "eta": 0.004, "beta": 0.6, "gamma": 0.5, "tau_min": 0.02, "tau_max": 0.09},
    ),
    "isogclr-cosine": (
        "isogclr",
        {"rho": 0.7, "tau_init": 0.1, "eta": 0.01, "eta_min": 1e-3, "eta_schedule": "cosine"},
    ),
    "isogclr-exp": (
        "isogclr",
        {"rho": 0.7, "tau_init": 0.1, "eta": 0.02, "eta_min": 2e-3, "eta_schedule": "exp", "eta_decay": 0.1},
    ),
    "isogclr-fastclip-v2": (
        "isogclr",
        {"rho": 0.7, "tau_init": 0.03, "eta": 0.0133, "tau_min": 0.01, "gamma": 0.2, "gamma_schedule": "cosine"}
        | {"tau_optimizer": "adam"},
    ),
    "isogclr-adam": (
        "isogclr",
        {"rho": 0.5, "tau_init": 0.05, "tau_max": 0.2, "eta": 0.003, "tau_optimizer": "adam"}
        | {"adam_beta1": 0.6, "adam_beta2": 0.8, "adam_eps": 1e-2, "eta_schedule": "cosine"},
    ),
    "rgcl_g": ("rgcl_g", {}),
    "rgcl_g-settling": (
        "rgcl_g",
        {"rho": 0.8, "tau_init": 0.2, "tau_min": 0.15, "gamma": 0.4, "gamma_schedule": "constant"},
    ),
}

TABLES = {
    "u": "log_u",
    "tau": "tau",
    "tau_grad": "tau_grad",
    "tau_grad_square": "tau_grad_square",
    "tau_updates": "tau_updates",
    "alignment": "alignment",
}
LEARNING_RATE = 0.1  # of the learned parameters, so that they move from step to step


def build_double(name: str, hyper: dict[str, Any], **options: Any) -> torch.nn.Module:
    """The loss under test with float64 tables, in training mode."""
    loss = build_loss(name, num_images=NUM_IMAGES, num_texts=NUM_TEXTS, **hyper, **options).double().train()
    loss.set_progress(0.0)  # as the transcription assumes where nothing else is said
    return loss


def take_step(loss: torch.nn.Module, batch: PairBatch, dtype: torch.dtype = torch.float64) -> tuple[Any, ...]:
    """One forward and backward pass: ``(out, image gradient, text gradient)``."""
    image_features = torch.tensor(batch.image_features, dtype=dtype, requires_grad=True)
    text_features = torch.tensor(batch.text_features, dtype=dtype, requires_grad=True)
    loss.zero_grad()
    out = loss(image_features, text_features, torch.tensor(batch.image_ids), torch.tensor(batch.text_ids))
    out.loss.backward()
    return out, image_features.grad, text_features.grad


def reference_step(
    name: str, hyper: dict[str, Any], state: ReferenceState, batch: PairBatch, **options: Any
) -> ReferenceStep:
    """The transcription's step on the same batch."""
    return compute_step(
        name, hyper, state, batch.image_features, batch.text_features, batch.image_ids, batch.text_ids, **options
    )


def expected_table(column: str, entries: dict[int, float], size: int, hyper: dict[str, Any]) -> np.ndarray:
    """What a whole table must hold, ids that were never visited included, ``[size]``."""
    unvisited = {"u": -np.inf, "tau": hyper.get("tau_init", 0.01), "alignment": np.nan}.get(column, 0.0)
    table = np.full(size, unvisited)
    for anchor_id, value in entries.items():
        table[anchor_id] = np.log(value) if column == "u" else value
    return table


def assert_tables_match(
    loss: torch.nn.Module, state: ReferenceState, name: str, hyper: dict[str, Any], rtol: float = RTOL
) -> None:
    """Every table of the loss equals the transcription's memory, entry by entry."""
    columns = {
        "macl": ["alignment"] if hyper.get("alignment") == "anchor" else [],
        "sogclr": ["u"],
        "isogclr": ["u", "tau", "tau_grad"],
        "rgcl_g": ["u"],
    }.get(name, [])
    if hyper.get("tau_optimizer") == "adam":
        columns = [*columns, "tau_grad_square", "tau_updates"]
    for modality, size in (("image", NUM_IMAGES), ("text", NUM_TEXTS)):
        for column in columns:
            actual = getattr(getattr(loss, f"{modality}_anchors"), TABLES[column])
            entries = getattr(getattr(state, modality), column)
            expected = expected_table(column, entries, size, hyper)
            assert tuple(actual.shape) == (size,)
            np.testing.assert_allclose(
                actual.detach().numpy(), expected, rtol=rtol, atol=ATOL, err_msg=f"{modality}_anchors.{column}"
            )


def assert_learned_match(loss: torch.nn.Module, expected: ReferenceStep) -> None:
    """Learned parameters and their gradients equal the transcription's; then both take a gradient step."""
    learned = dict(loss.named_parameters())
    grads = {"logit_scale": expected.logit_scale_grad, "logit_bias": expected.logit_bias_grad}
    assert learned.keys() == {name for name, grad in grads.items() if grad is not None}
    for name, parameter in learned.items():
        np.testing.assert_allclose(parameter.item(), getattr(expected.state, name), rtol=RTOL, atol=ATOL)
        np.testing.assert_allclose(parameter.grad.item(), grads[name], rtol=RTOL, atol=ATOL)
        with torch.no_grad():
            parameter -= LEARNING_RATE * parameter.grad
        setattr(expected.state, name, getattr(expected.state, name) - LEARNING_RATE * grads[name])


def assert_agreement(
    name: str, hyper: dict[str, Any], batches: Iterable[PairBatch], mask_repeats: bool = True, **options: Any
) -> tuple[torch.nn.Module, ReferenceState]:
    """Loss, gradients, metrics, tables and learned parameters equal the transcription's after every one of the batches.

    Schedules run from the beginning to the end of the batches, and learned parameters take a gradient step after each.
    """
    loss = build_double(name, hyper, mask_repeats=mask_repeats, **options)
    state = ReferenceState()
    batches = list(batches)
    for step, batch in enumerate(batches):
        progress = step / len(batches)
        loss.set_progress(progress)
        out, image_grad, text_grad = take_step(loss, batch)
        expected = reference_step(name, hyper, state, batch, mask_repeats=mask_repeats, progress=progress)
        state = expected.state
        np.testing.assert_allclose(out.loss.item(), expected.loss, rtol=RTOL, atol=ATOL)
        np.testing.assert_allclose(image_grad.numpy(), expected.image_grad, rtol=RTOL, atol=ATOL)
        np.testing.assert_allclose(text_grad.numpy(), expected.text_grad, rtol=RTOL, atol=ATOL)
        assert_learned_match(loss, expected)
        np.testing.assert_allclose(out.metrics["tau_image"].item(), np.mean(expected.image_taus), rtol=RTOL)
        np.testing.assert_allclose(out.metrics["tau_text"].item(), np.mean(expected.text_taus), rtol=RTOL)
        np.testing.assert_allclose(out.metrics["alignment"].item(), expected.alignment, rtol=RTOL, atol=ATOL)
        assert_tables_match(loss, state, name, hyper)
    return loss, state
