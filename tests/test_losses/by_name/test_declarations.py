"""What a loss declares and returns is checked, so that a mistake in a new loss says what is wrong."""

import math
from typing import Literal

import pytest
import torch
from pydantic import Field
from torch.nn.functional import normalize

from bimodal_cl.losses import build_loss
from bimodal_cl.losses.module import registry
from bimodal_cl.losses.rules.base import AnchorStep, MarginSettings
from bimodal_cl.settings import Positive


class Fixed(MarginSettings):
    """A fixed temperature, and whatever metrics a test asks for."""

    tau: Positive = Field(0.1, description="temperature")

    def temperature(self, anchors):
        return torch.full_like(anchors.alignment, self.tau)

    def anchor_losses(self, direction):
        return AnchorStep(direction.margins.margin, metrics={"margin": direction.margins.margin})


def call(monkeypatch, declared, image_ids=(0, 1, 2)):
    monkeypatch.setitem(registry.LOSS_SETTINGS, "fixed", declared)
    images, texts = (normalize(torch.randn(3, 4), dim=1) for _ in range(2))
    return build_loss("fixed")(images, texts, torch.tensor(image_ids), torch.arange(3))


def declare(**rules):
    annotations = {"name": Literal["fixed"]}
    return type("Declared", (Fixed,), {"__annotations__": annotations, "__module__": __name__, **rules})


def test_metrics_are_averaged_over_anchors_with_negatives(monkeypatch):
    """The margin of an anchor without negatives is 0, and would pull the mean towards it."""
    out = call(monkeypatch, declare(), image_ids=(0, 0, 0))
    assert out.metrics["anchors_without_negatives"] == 3 and out.metrics["margin_image"] == 0
    margins = []

    def anchor_losses(self, direction):
        margins.append(direction.margins.margin.detach())
        return AnchorStep(direction.margins.margin, metrics={"margin": direction.margins.margin})

    declared = declare(anchor_losses=anchor_losses)
    out = call(monkeypatch, declared)
    assert math.isclose(out.metrics["margin_image"].item(), margins[0].mean().item(), rel_tol=1e-6)
    assert not out.metrics["margin_image"].requires_grad


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"temperature": lambda self, anchors: 0.1}, r"fixed: temperature must .* shape \[3, 1\], got float"),
        ({"temperature": lambda self, anchors: torch.tensor(0.1)}, r"fixed: temperature must .*, got shape \[\]"),
        (
            {"anchor_losses": lambda self, d: AnchorStep(d.margins.margin, metrics={"tau": d.tau})},
            r"metric 'tau' of a weight rule: every loss logs a 'tau_image'; choose another name",
        ),
    ],
)
def test_rules_that_return_something_else_are_named(monkeypatch, rules, message):
    with pytest.raises(TypeError, match=message):
        call(monkeypatch, declare(**rules))


def test_a_rule_that_is_missing_is_named(monkeypatch):
    class Bare(MarginSettings):
        name: Literal["fixed"]

    with pytest.raises(NotImplementedError, match="Bare defines no temperature"):
        call(monkeypatch, Bare)
