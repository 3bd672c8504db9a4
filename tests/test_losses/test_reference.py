"""The transcription against finite differences: its gradients by hand are the gradients of what it computes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from tests.reference import ReferenceState, ReferenceStep, compute_step
from tests.reference.odds import compute_odds, list_negatives
from tests.test_losses.pair_batches import PairBatch, draw_batches

STEP = 1e-6

# One visit with gamma 1 makes u equal to g, and then the surrogate's gradient is the objective's own.
TRUE_OBJECTIVES = [
    ("clip", {"tau_init": 0.2}),
    ("macl", {"tau_base": 0.2, "alpha": 0.0, "reweight": False}),
    ("sogclr", {"tau": 0.2, "gamma": 1.0}),
    ("isogclr", {"tau_init": 0.2, "gamma": 1.0}),
    ("siglip", {"tau_init": 0.2, "bias_init": -2.0}),
    ("cyclip", {"tau_init": 0.2, "lambda_in_modal": 0.7}),
    ("rgcl_g", {"tau_init": 0.2, "gamma": 1.0}),
]


def distinct_batch() -> PairBatch:
    """Six pairs of which no two share an id, so that no average joins occurrences."""
    batch = next(batch for batch in draw_batches("random", 50, seed=1) if len(batch.image_ids) >= 6)
    return PairBatch(batch.image_features[:6], batch.text_features[:6], list(range(6)), list(range(6)))


def central_difference(function: Callable[[np.ndarray], float], point: np.ndarray) -> np.ndarray:
    """Gradient of ``function`` at ``point``, entry by entry."""
    grad = np.zeros_like(point)
    for index in np.ndindex(*point.shape):
        shift = np.zeros_like(point)
        shift[index] = STEP
        grad[index] = (function(point + shift) - function(point - shift)) / (2 * STEP)
    return grad


@pytest.mark.parametrize(("name", "hyper"), TRUE_OBJECTIVES)
def test_feature_gradients(name: str, hyper: dict) -> None:
    batch = distinct_batch()

    def loss_of(image_features: np.ndarray, text_features: np.ndarray) -> float:
        step = compute_step(
            name, hyper, ReferenceState(), image_features, text_features, batch.image_ids, batch.text_ids
        )
        return step.loss

    step = compute_step(
        name, hyper, ReferenceState(), batch.image_features, batch.text_features, batch.image_ids, batch.text_ids
    )
    image_grad = central_difference(lambda x: loss_of(x, batch.text_features), batch.image_features)
    text_grad = central_difference(lambda y: loss_of(batch.image_features, y), batch.text_features)
    np.testing.assert_allclose(step.image_grad, image_grad, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(step.text_grad, text_grad, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["clip", "siglip", "cyclip", "rgcl_g"])
def test_learned_parameters_gradients(name: str) -> None:
    """``log(1 / tau)``, and ``siglip``'s bias. (At a first visit ``u`` is ``g``: the estimate is the objective.)"""
    batch = distinct_batch()
    features = (batch.image_features, batch.text_features, batch.image_ids, batch.text_ids)

    def step_at(learned: np.ndarray) -> ReferenceStep:
        return compute_step(name, {}, ReferenceState(logit_scale=learned[0], logit_bias=learned[1]), *features)

    point = np.array([math.log(1 / 0.3), -1.5])
    scale_grad, bias_grad = central_difference(lambda learned: step_at(learned).loss, point)
    step = step_at(point)
    np.testing.assert_allclose(step.logit_scale_grad, scale_grad, rtol=1e-6)
    if name == "siglip":
        np.testing.assert_allclose(step.logit_bias_grad, bias_grad, rtol=1e-6)


def test_temperature_gradient_is_the_robust_objectives() -> None:
    """With ``u = g``, ``G_i`` is the derivative of ``tau log g_i(tau) + tau rho``."""
    batch = distinct_batch()
    hyper = {"tau_init": 0.3, "gamma": 1.0, "beta": 1.0, "rho": 0.5}
    step = compute_step(
        "isogclr",
        hyper,
        ReferenceState(),
        batch.image_features,
        batch.text_features,
        batch.image_ids,
        batch.text_ids,
    )
    sims = batch.image_features @ batch.text_features.T
    negatives = list_negatives(batch.image_ids, batch.text_ids, mask_repeats=True)
    for i, members in enumerate(negatives):

        def objective(tau: np.ndarray, i: int = i, members: list[int] = members) -> float:
            mean_odds = compute_odds(sims, i, members, float(tau[0])) / len(members)
            return float(tau[0]) * (math.log(mean_odds) + hyper["rho"])

        expected = central_difference(objective, np.array([0.3]))[0]
        assert abs(expected) < 5.0
        np.testing.assert_allclose(step.state.image.tau_grad[i], expected, rtol=1e-6)
        np.testing.assert_allclose(step.state.image.tau[i], 0.3 - 0.03 * expected, rtol=1e-6)


def test_macl_gradient_is_the_margins() -> None:
    """``V_i`` cancels the sigmoid: MACL's gradient is that of the mean margin, whatever the probabilities are."""
    batch = distinct_batch()
    hyper = {"tau_base": 0.2, "alpha": 0.0}

    def mean_margin(image_features: np.ndarray) -> float:
        sims = image_features @ batch.text_features.T
        negatives = list_negatives(batch.image_ids, batch.text_ids, mask_repeats=True)
        margins = [math.log(compute_odds(s, i, m, 0.2)) for s in (sims, sims.T) for i, m in enumerate(negatives)]
        return sum(margins) / len(margins)

    step = compute_step(
        "macl", hyper, ReferenceState(), batch.image_features, batch.text_features, batch.image_ids, batch.text_ids
    )
    expected = central_difference(mean_margin, batch.image_features)
    np.testing.assert_allclose(step.image_grad, expected, rtol=1e-6, atol=1e-8)


def test_steps_leave_the_given_state_alone() -> None:
    batch = distinct_batch()
    state = ReferenceState()
    compute_step("isogclr", {}, state, batch.image_features, batch.text_features, batch.image_ids, batch.text_ids)
    assert state == ReferenceState()
