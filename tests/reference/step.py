"""One step of any reference loss: both directions, their gradients in the features, the state afterwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.reference.clip import compute_clip_direction, compute_logit_scale_grad
from tests.reference.cyclip import compute_cyclic_terms
from tests.reference.macl import compute_macl_direction, compute_macl_tau, update_alignment
from tests.reference.odds import compute_sims_grad, list_negatives
from tests.reference.siglip import compute_siglip
from tests.reference.sogclr import compute_gamma, compute_sogclr_direction, compute_tau_grads, update_taus
from tests.reference.state import AnchorMemory, DirectionTerms, ReferenceState, ReferenceStep
from tests.reference.tau_steps import compute_eta

DEFAULTS: dict[str, dict[str, Any]] = {
    "clip": {"tau_init": 0.07, "tau_min": 0.01},
    "siglip": {"tau_init": 0.1, "tau_min": 0.01, "bias_init": -10.0},
    "cyclip": {"tau_init": 0.07, "tau_min": 0.01, "lambda_in_modal": 0.25, "lambda_cross_modal": 0.25},
    "macl": {
        "tau_base": 0.1,
        "alpha": 0.5,
        "alignment_base": 0.0,
        "alignment": "batch",
        "mu": 0.1,
        "reweight": True,
        "text_tau_base": None,
        "text_alpha": None,
        "text_alignment_base": None,
    },
    "sogclr": {"tau": 0.05, "gamma": 0.8, "gamma_schedule": "constant", "gamma_warmup": 0.0},
    "isogclr": {
        "tau_init": 0.01,
        "tau_min": 0.005,
        "tau_max": 1.0,
        "gamma": 0.8,
        "gamma_schedule": "constant",
        "gamma_warmup": 0.0,
        "rho": 6.0,
        "beta": 0.9,
        "eta": 0.03,
        "eta_schedule": "constant",
        "eta_min": 1e-4,
        "eta_decay": 0.00124,
        "eta_warmup": 0.0,
        "tau_optimizer": "momentum",
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_eps": 1e-8,
    },
    "rgcl_g": {
        "tau_init": 0.07,
        "tau_min": 0.01,
        "gamma": 0.2,
        "gamma_schedule": "cosine",
        "gamma_warmup": 0.0,
        "rho": 6.5,
    },
}
LEARNED_TAU = ("clip", "siglip", "cyclip", "rgcl_g")


def _macl_terms(
    hyper: dict[str, Any],
    modality: str,
    sims: np.ndarray,
    ids: Sequence[int],
    negatives: list[list[int]],
    memory: AnchorMemory,
) -> DirectionTerms:
    knobs = []
    for name in ("tau_base", "alpha", "alignment_base"):
        own = hyper[f"text_{name}"] if modality == "text" else None
        knobs.append(hyper[name] if own is None else own)
    num_pairs = len(ids)
    batch_alignment = sum(float(sims[i, i]) for i in range(num_pairs)) / num_pairs
    if hyper["alignment"] == "batch":
        taus = [compute_macl_tau(batch_alignment, *knobs)] * num_pairs
    else:
        update_alignment(memory.alignment, ids, sims, negatives, hyper["mu"])
        # An anchor without negatives may have no alignment yet; its temperature takes part in nothing.
        taus = [compute_macl_tau(memory.alignment.get(k, float(sims[i, i])), *knobs) for i, k in enumerate(ids)]
    return compute_macl_direction(sims, negatives, taus, hyper["reweight"])


def _sogclr_terms(
    name: str,
    hyper: dict[str, Any],
    sims: np.ndarray,
    ids: Sequence[int],
    negatives: list[list[int]],
    memory: AnchorMemory,
    tau: float | None,
    progress: float,
) -> tuple[DirectionTerms, float]:
    """One direction's terms, and its mean derivative in the temperature where there is one for all."""
    gamma = compute_gamma(hyper["gamma"], hyper["gamma_schedule"], hyper["gamma_warmup"], progress)
    if name == "sogclr":
        taus = [hyper["tau"]] * len(ids)
        return compute_sogclr_direction(sims, ids, negatives, taus, memory, gamma, rho=0.0), 0.0
    taus = [memory.tau.get(k, hyper["tau_init"]) if tau is None else tau for k in ids]
    terms = compute_sogclr_direction(sims, ids, negatives, taus, memory, gamma, hyper["rho"])
    tau_grads = compute_tau_grads(sims, ids, negatives, taus, memory, hyper["rho"])
    if name == "isogclr":
        update_taus(ids, tau_grads, memory, hyper, compute_eta(hyper, progress))
    return terms, sum(g for g in tau_grads if g is not None) / len(ids)


def compute_step(
    name: str,
    hyper: dict[str, Any],
    state: ReferenceState,
    image_features: np.ndarray,
    text_features: np.ndarray,
    image_ids: Sequence[int],
    text_ids: Sequence[int],
    mask_repeats: bool = True,
    progress: float = 0.0,
) -> ReferenceStep:
    """Take one step of the loss ``name``: ``L = (L_image + L_text) / 2``, means over all pairs of the batch.

    Args:
        hyper: the arguments given to ``build_loss``; what is missing has LOSSES' default.
        state: the memory before the step; not changed.
        image_features, text_features: unit-norm ``[batch, dim]`` float64.
        progress: share of training done, in ``[0, 1]``; schedules read it.
    """
    hyper = {**DEFAULTS[name], **hyper}
    state = state.copy()
    negatives = list_negatives(image_ids, text_ids, mask_repeats)
    image_to_text = np.array([[float(np.dot(x, y)) for y in text_features] for x in image_features])
    directions = {"image": (image_to_text, image_ids), "text": (image_to_text.T, text_ids)}
    learned_tau = None
    if name in LEARNED_TAU:
        initial = math.log(1.0 / hyper["tau_init"]) if state.logit_scale is None else state.logit_scale
        state.logit_scale = min(initial, math.log(1.0 / hyper["tau_min"]))
        learned_tau = math.exp(-state.logit_scale)
    if name == "siglip":
        return _siglip_step(hyper, state, image_features, text_features, image_to_text, negatives)
    terms: dict[str, DirectionTerms] = {}
    grads: dict[str, np.ndarray] = {}
    logit_scale_grad = 0.0
    for modality, (sims, ids) in directions.items():
        memory: AnchorMemory = getattr(state, modality)
        if name in ("clip", "cyclip"):
            assert learned_tau is not None
            terms[modality] = compute_clip_direction(sims, negatives, learned_tau)
            logit_scale_grad += compute_logit_scale_grad(sims, negatives, terms[modality]) / 2.0
        elif name == "macl":
            terms[modality] = _macl_terms(hyper, modality, sims, ids, negatives, memory)
        else:
            terms[modality], tau_grad = _sogclr_terms(name, hyper, sims, ids, negatives, memory, learned_tau, progress)
            if learned_tau is not None:  # d tau / d log(1 / tau) = -tau
                logit_scale_grad -= learned_tau * tau_grad / 2.0
        grads[modality] = compute_sims_grad(sims, negatives, terms[modality].taus, terms[modality].coefficients)
    sims_grad = (grads["image"] + grads["text"].T) / 2.0
    num_pairs = len(image_ids)
    step = ReferenceStep(
        loss=sum(sum(terms[modality].losses) for modality in terms) / num_pairs / 2.0,
        image_grad=sims_grad @ text_features,
        text_grad=sims_grad.T @ image_features,
        state=state,
        image_taus=terms["image"].taus,
        text_taus=terms["text"].taus,
        alignment=float(np.mean(np.diag(image_to_text))),
        logit_scale_grad=logit_scale_grad if name in LEARNED_TAU else None,
    )
    if name == "cyclip":
        weights = hyper["lambda_in_modal"], hyper["lambda_cross_modal"]
        loss, image_grad, text_grad = compute_cyclic_terms(image_features, text_features, *weights)
        step.loss, step.image_grad, step.text_grad = (
            step.loss + loss,
            step.image_grad + image_grad,
            step.text_grad + text_grad,
        )
    return step


def _siglip_step(
    hyper: dict[str, Any],
    state: ReferenceState,
    image_features: np.ndarray,
    text_features: np.ndarray,
    sims: np.ndarray,
    negatives: list[list[int]],
) -> ReferenceStep:
    assert state.logit_scale is not None
    state.logit_bias = hyper["bias_init"] if state.logit_bias is None else state.logit_bias
    tau = math.exp(-state.logit_scale)
    terms = compute_siglip(sims, negatives, tau, state.logit_bias)
    return ReferenceStep(
        loss=terms.loss,
        image_grad=terms.sims_grad @ text_features,
        text_grad=terms.sims_grad.T @ image_features,
        state=state,
        image_taus=[tau] * len(sims),
        text_taus=[tau] * len(sims),
        alignment=float(np.mean(np.diag(sims))),
        logit_scale_grad=terms.logit_scale_grad,
        logit_bias_grad=terms.logit_bias_grad,
    )
