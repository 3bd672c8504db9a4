"""Hyperparameters that leave others without effect give one warning, with their values."""

import warnings
from typing import Any

import pytest

from bimodal_cl.losses import build_loss

SIZES = {"num_images": 4, "num_texts": 4}


def concerns(name: str, **hyper: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build_loss(name, **SIZES, **hyper)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("name", "hyper", "message"),
    [
        ("sogclr", {"gamma": 1.0, "gamma_schedule": "cosine"}, "gamma=1: gamma_schedule='cosine'"),
        ("isogclr", {"gamma": 1.0, "gamma_schedule": "cosine"}, "gamma=1: gamma_schedule='cosine'"),
        ("sogclr", {"gamma": 1.0, "gamma_warmup": 0.1}, "gamma=1: gamma_warmup=0.1, from 1 to gamma, has no effect"),
        ("rgcl_g", {"gamma": 1.0}, "gamma=1: gamma_schedule='cosine'"),
        ("macl", {"alpha": 0.0, "alignment": "anchor"}, "alpha=0: the temperatures are fixed, so alignment='anchor'"),
        ("macl", {"alpha": 0.0, "alignment_base": 0.3, "text_alpha": 0.5}, "alpha=0: the temperature is tau_base=0.1"),
        ("macl", {"text_alpha": 0.0, "text_alignment_base": 0.3}, "so text_alignment_base=0.3 has no effect"),
        ("isogclr", {"tau_min": 0.01, "tau_max": 0.01}, "tau_min=tau_max=0.01: no temperature can move"),
        ("isogclr", {"eta_schedule": "cosine", "eta_min": 0.03}, "eta_min=0.03 is eta: eta_schedule='cosine'"),
        ("isogclr", {"eta_schedule": "exp", "eta_decay": 1.0}, "eta_decay=1: eta_schedule='exp' has no effect"),
    ],
)
def test_warned_of(name, hyper, message):
    (line,) = concerns(name, **hyper)
    assert message in line and "\n" not in line


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("sogclr", {"gamma": 1.0}),
        ("sogclr", {"gamma": 0.9, "gamma_schedule": "cosine"}),
        ("macl", {"alpha": 0.0}),
        ("macl", {"alpha": 0.0, "text_alpha": 0.5, "alignment": "anchor"}),
        ("isogclr", {"eta_schedule": "exp", "eta_decay": 0.5}),
        ("isogclr", {"tau_init": 0.005}),
    ],
)
def test_left_in_peace(name, hyper):
    assert concerns(name, **hyper) == []
