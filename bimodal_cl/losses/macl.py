"""MACL: a temperature that follows the alignment of positives, and gradients reweighted to scale one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from jaxtyping import Float
from pydantic import Field, model_validator

from bimodal_cl.losses.rules.base import (
    Anchors,
    AnchorStep,
    Direction,
    Modality,
    TableSettings,
    Tensor,
    refuse_unused,
)
from bimodal_cl.settings import Cosine, NotNegative, Positive, Weight


class MACL(TableSettings):
    """Model-Aware Contrastive Learning (Huang et al., ICML 2023), symmetric over images and texts.

    Temperature: ``tau = tau_base * (1 + alpha * (A - alignment_base))`` with ``A`` the alignment of positives, not
    differentiated. Well-aligned pairs get a larger temperature, hence more tolerance of near negatives. With
    ``alignment="batch"`` (the paper) ``A`` is the mean cosine of the global batch's positives. With ``"anchor"`` every
    image and every text keeps its own moving average ``a_i <- (1 - mu) a_i + mu s_ii`` (the first visit sets it),
    updated before it is used.

    Loss: ``L_i = V_i * softplus(z_i)`` with ``V_i = 1/(1 - P_i) = 1/sigmoid(z_i)`` not differentiated and ``P_i`` the
    probability of the positive. Since ``d softplus(z)/dz = sigmoid(z)``, the weight of ``grad z_i`` is

        V_i * sigmoid(z_i) = 1    exactly,

    so the gradient is that of ``z_i`` and is computed as such. Written out, ``1/(1 - P)`` is infinite in float32 once a
    pair is learned (``P = 1``) and the gradient becomes ``inf * 0 = NaN``; here nothing can overflow. The value
    reported is ``V_i * softplus(z_i)``, which tends to 1 from above as the pair is learned. ``reweight=False`` leaves
    ``V`` out (the paper's ablation): ``L_i = softplus(z_i)``.

    Raises:
        ValueError: a value out of range, or a temperature that can fall to 0 (on construction; in a step where
            ``alpha > 1`` and the alignment is too low for it).
    """

    name: Literal["macl"]
    tau_base: Positive = Field(0.1, description="temperature at the base alignment")
    alpha: NotNegative = Field(0.5, description="how strongly the temperature follows the alignment")
    alignment_base: Cosine = Field(0.0, description="alignment with tau = tau_base")
    alignment: Literal["batch", "anchor"] = Field(
        "batch", description="mean of the batch, or one value for each image and text"
    )
    mu: Weight = Field(0.1, description="anchor: weight of the new alignment")
    reweight: bool = Field(True, description="scale gradients to one; false: the paper's ablation")
    text_tau_base: Positive | None = Field(None, description="texts' tau_base; null: the images'")
    text_alpha: NotNegative | None = Field(None, description="texts' alpha; null: the images'")
    text_alignment_base: Cosine | None = Field(None, description="texts' alignment_base; null: the images'")

    @model_validator(mode="after")
    def _check(self) -> MACL:
        for modality in ("image", "text"):
            self.tau_rule(modality).require_sound()
        if self.alignment == "batch":
            refuse_unused(self, "alignment='batch'", "mu")
            if self.tables != "replicated" or self.table_device is not None:
                raise ValueError(
                    f"macl with alignment='batch' has no tables: drop tables='{self.tables}' and "
                    f"table_device={self.table_device!r}"
                )
        return self

    def tau_rule(self, modality: Modality) -> TemperatureRule:
        """Return the temperature rule of one modality."""
        if modality == "image":
            return TemperatureRule("", self.tau_base, self.alpha, self.alignment_base)
        return TemperatureRule(
            "text_",
            self.tau_base if self.text_tau_base is None else self.text_tau_base,
            self.alpha if self.text_alpha is None else self.text_alpha,
            self.alignment_base if self.text_alignment_base is None else self.text_alignment_base,
        )

    def concerns(self) -> Iterator[str]:
        """Say which settings have no effect, and which temperatures may fail in a step."""
        image, text = self.tau_rule("image"), self.tau_rule("text")
        yield from image.concerns()
        yield from text.concerns()
        if self.alignment == "anchor" and image.alpha == text.alpha == 0:
            yield (
                "alpha=0: the temperatures are fixed, so alignment='anchor' with its tables has no effect; raise alpha "
                "or use 'batch'"
            )

    def table_columns(self) -> dict[str, float]:
        """Return ``alignment`` where each anchor has its own; NaN stands for an anchor that has not been seen."""
        return {"alignment": math.nan} if self.alignment == "anchor" else {}

    def temperature(self, anchors: Anchors) -> Float[Tensor, "anchors 1"]:
        """Return ``tau_base * (1 + alpha * (A - alignment_base))``."""
        from bimodal_cl.distributed import reduce_max, reduce_sum, world_size

        if self.alignment == "batch":
            alignment = (reduce_sum(anchors.alignment.mean()) / world_size()).expand_as(anchors.alignment)
        else:
            own = anchors.occurrences.to_local(self.update_alignment(anchors), math.nan)
            alignment = anchors.alignment.where(own.isnan(), own)  # NaN: an anchor without negatives
        rule = self.tau_rule(anchors.modality)
        if rule.may_fail:  # the same on all ranks, so that none waits for one that has raised
            rule.require_positive(-reduce_max(-alignment.min()).item())
        return rule(alignment)

    def own_tau(self, modality: Modality, columns: Mapping[str, Any]) -> Any:
        """Return each anchor's temperature from its alignment; None with ``alignment="batch"``."""
        return self.tau_rule(modality)(columns["alignment"]) if "alignment" in columns else None

    def update_alignment(self, anchors: Anchors) -> Float[Tensor, "ids 1"]:
        """Return the new moving average of every id of the global batch."""
        seen, old = anchors.occurrences.mean(anchors.alignment), anchors.columns["alignment"]
        return seen.where(old.isnan(), (1 - self.mu) * old + self.mu * seen)

    def anchor_losses(self, direction: Direction) -> AnchorStep:
        """Return ``V_i * softplus(z_i)`` with gradient one in ``z_i``, or ``softplus(z_i)`` without reweighting."""
        from bimodal_cl.losses.margin import compute_softplus

        columns = {"alignment": self.update_alignment(direction)} if self.alignment == "anchor" else {}
        margin = direction.margins.margin
        if not self.reweight:
            return AnchorStep(compute_softplus(margin), columns)
        return AnchorStep(compute_reweighted_value(margin.detach()) + (margin - margin.detach()), columns)


@dataclasses.dataclass(frozen=True)
class TemperatureRule:
    """One modality's ``tau_base * (1 + alpha * (A - alignment_base))``.

    Attributes:
        prefix: of the fields' names in messages.
        tau_base: temperature at ``A = alignment_base``.
        alpha: how strongly the temperature follows the alignment.
        alignment_base: the alignment at which the temperature is ``tau_base``.
    """

    prefix: str
    tau_base: float
    alpha: float
    alignment_base: float

    def __call__(self, alignment: Any) -> Any:
        """Return the temperatures at alignments, an array of torch or of numpy."""
        return self.tau_base * (1 + self.alpha * (alignment - self.alignment_base))

    @property
    def formula(self) -> str:
        """The rule with its numbers, for messages."""
        return f"{self.tau_base} * (1 + {self.alpha} * (A - {self.alignment_base}))"

    @property
    def may_fail(self) -> bool:
        """Whether the temperature is not positive at the lowest alignment there is, -1."""
        return 1 + self.alpha * (-1 - self.alignment_base) <= 0

    def require_sound(self) -> None:
        """Refuse a rule whose temperature can fall below 0, unless ``alpha > 1``, where each step is checked.

        Raises:
            ValueError: with the values.
        """
        if self.alpha <= 1 and 1 + self.alpha * (-1 - self.alignment_base) < 0:
            raise ValueError(
                f"{self.prefix}alpha={self.alpha} with {self.prefix}alignment_base={self.alignment_base}: the "
                f"temperature {self.formula} falls below 0 for alignments under "
                f"{self.alignment_base - 1 / self.alpha:.3g}"
            )

    def require_positive(self, lowest: float) -> None:
        """Refuse an alignment at which the temperature is not positive.

        Raises:
            ValueError: with the formula and the alignment.
        """
        if not 1 + self.alpha * (lowest - self.alignment_base) > 0:
            raise ValueError(f"the temperature {self.formula} is not positive at an alignment of {lowest:.4g}")

    def concerns(self) -> Iterator[str]:
        """Say that a setting has no effect, or that the temperature may fail in a step."""
        prefix = self.prefix
        if self.alpha == 0 and self.alignment_base != 0:
            yield (
                f"{prefix}alpha=0: the temperature is {prefix}tau_base={self.tau_base} at any alignment, so "
                f"{prefix}alignment_base={self.alignment_base} has no effect; raise {prefix}alpha or leave it out"
            )
        if self.alpha > 1:
            yield (
                f"{prefix}alpha={self.alpha} exceeds 1: the temperature {self.formula} is positive only above an "
                f"alignment of {self.alignment_base - 1 / self.alpha:.3g}; a step below that is refused"
            )


def compute_reweighted_value(margin: Float[Tensor, "anchors 1"]) -> Float[Tensor, "anchors 1"]:
    """``softplus(z) / sigmoid(z) = (1 + exp(-z)) * log(1 + exp(z))`` without overflow.

    Below -20 the quotient is ``1 + exp(z)/2`` to float64's precision (next term of the series: ``-exp(2z)/6``).
    """
    from bimodal_cl.losses.margin import compute_softplus

    moderate = margin.clamp(min=-20)
    exact = compute_softplus(moderate) * (1 + (-moderate).exp())
    return (1 + margin.clamp(max=0).exp() / 2).where(margin < -20, exact)
