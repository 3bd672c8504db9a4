"""MACL: a temperature that follows the alignment of positives, and gradients reweighted to scale one."""

from __future__ import annotations

import math
import warnings
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bimodal_cl.distributed import reduce_max, reduce_sum, world_size
from bimodal_cl.losses.contrastive import Anchors, Direction, MarginLoss, refuse_unused, require_between
from bimodal_cl.losses.margin import compute_softplus
from bimodal_cl.losses.margin.products import Products
from bimodal_cl.losses.margin.tiles import TileSize
from bimodal_cl.losses.tables.anchors import AnchorTable


class MACLLoss(MarginLoss):
    """Model-Aware Contrastive Learning (Huang et al., ICML 2023), symmetric over images and texts.

    Temperature: ``tau = tau_base * (1 + alpha * (A - alignment_base))`` with ``A`` the alignment of positives, not
    differentiated. Well-aligned pairs get a larger temperature, hence more tolerance of near negatives.

    Loss: ``L_i = V_i * softplus(z_i)`` with ``V_i = 1/(1 - P_i) = 1/sigmoid(z_i)`` not differentiated and ``P_i`` the
    probability of the positive. Since ``d softplus(z)/dz = sigmoid(z)``, the weight of ``grad z_i`` is

        V_i * sigmoid(z_i) = 1    exactly,

    so the gradient is that of ``z_i`` and is computed as such. Written out, ``1/(1 - P)`` is infinite in float32 once a
    pair is learned (``P = 1``) and the gradient becomes ``inf * 0 = NaN``; here nothing can overflow. The value
    reported is ``V_i * softplus(z_i)``, which tends to 1 from above as the pair is learned.

    Args:
        tau_base: temperature at ``A = alignment_base``, > 0.
        alpha: how strongly the temperature follows the alignment, 0 (fixed) to 1; more than 1 warns.
        alignment_base: alignment at which the temperature is ``tau_base``, in [-1, 1].
        alignment: ``"batch"`` (the paper): ``A`` is the mean cosine of the global batch's positives. ``"anchor"``:
            every image and every text keeps its own moving average ``a_i <- (1 - mu) a_i + mu s_ii`` (the first visit
            sets it), updated before it is used.
        mu: weight of the new value in that moving average, in (0, 1].
        reweight: False leaves ``V`` out (the paper's ablation): ``L_i = softplus(z_i)``.
        text_tau_base: for text anchors; None takes the images'. So do ``text_alpha`` and ``text_alignment_base``.
        tables: of ``alignment="anchor"``; see :class:`AnchorTable`. So is ``table_device``.

    Raises:
        ValueError: a value out of range, or a temperature that can fall to 0 (on construction; in a step where
            ``alpha > 1`` and the alignment is too low for it).
    """

    def __init__(
        self,
        num_images: int | None = None,
        num_texts: int | None = None,
        *,
        tau_base: float = 0.1,
        alpha: float = 0.5,
        alignment_base: float = 0.0,
        alignment: Literal["batch", "anchor"] = "batch",
        mu: float = 0.1,
        reweight: bool = True,
        text_tau_base: float | None = None,
        text_alpha: float | None = None,
        text_alignment_base: float | None = None,
        tile_size: TileSize = "auto",
        mask_repeats: bool = True,
        products: Products = "float32",
        tables: Literal["replicated", "sharded"] = "replicated",
        table_device: Literal["cpu"] | None = None,
    ) -> None:
        super().__init__(num_images, num_texts, tile_size, mask_repeats, products)
        if alignment not in ("batch", "anchor"):
            raise ValueError(f"alignment='{alignment}' must be 'batch' or 'anchor'")
        require_between("mu", mu, 0, 1, low_open=True)
        if alignment == "batch":
            refuse_unused("alignment='batch'", mu=(mu, 0.1))
        self.mu, self.reweight = mu, reweight
        self._rule = {
            "image": TemperatureRule("", tau_base, alpha, alignment_base),
            "text": TemperatureRule(
                "text_",
                tau_base if text_tau_base is None else text_tau_base,
                alpha if text_alpha is None else text_alpha,
                alignment_base if text_alignment_base is None else text_alignment_base,
            ),
        }
        if alignment == "anchor" and self._rule["image"].alpha == self._rule["text"].alpha == 0:
            warnings.warn(
                "alpha=0: the temperatures are fixed, so alignment='anchor' with its tables has no effect; raise alpha "
                "or take 'batch'",
                stacklevel=3,
            )
        if alignment == "batch" and (tables != "replicated" or table_device is not None):
            raise ValueError(
                f"macl with alignment='batch' has no tables: drop tables='{tables}' and table_device={table_device!r}"
            )
        if alignment == "anchor":
            if num_images is None or num_texts is None:
                raise ValueError("macl with alignment='anchor' needs num_images and num_texts: one row for each")
            self.image_anchors = AnchorTable(num_images, tables, table_device, alignment=math.nan)
            self.text_anchors = AnchorTable(num_texts, tables, table_device, alignment=math.nan)

    def temperature(self, anchors: Anchors) -> Float[Tensor, "anchors 1"]:
        """Return ``tau_base * (1 + alpha * (A - alignment_base))`` ."""
        table = self.table_of(anchors)
        if table is None:
            alignment = (reduce_sum(anchors.alignment.mean()) / world_size()).expand_as(anchors.alignment)
        else:
            alignment = MovingAlignment(table, anchors, self.mu).for_anchors
        return self._rule[anchors.modality](alignment)

    def table_of(self, anchors: Anchors) -> AnchorTable | None:
        """Return the table of the anchors' modality; None where the batch's alignment is used."""
        return self.image_anchors if anchors.modality == "image" else self.text_anchors

    def anchor_losses(self, direction: Direction) -> Float[Tensor, "anchors 1"]:
        """Return ``V_i * softplus(z_i)`` with gradient one in ``z_i``, or ``softplus(z_i)`` without reweighting.

        Moves the anchors' alignment, only here: a refused temperature of either modality leaves the tables alone.
        """
        table = self.table_of(direction)
        if self.training and table is not None:
            MovingAlignment(table, direction, self.mu).write_()
        margin = direction.margins.margin
        if not self.reweight:
            return compute_softplus(margin)
        return compute_reweighted_value(margin.detach()) + (margin - margin.detach())


class TemperatureRule:
    """One modality's ``tau_base * (1 + alpha * (A - alignment_base))`` with its ranges checked."""

    def __init__(self, prefix: str, tau_base: float, alpha: float, alignment_base: float) -> None:
        require_between(f"{prefix}tau_base", tau_base, 0, math.inf, low_open=True)
        require_between(f"{prefix}alpha", alpha, 0, math.inf)
        require_between(f"{prefix}alignment_base", alignment_base, -1, 1)
        if alpha == 0 and alignment_base != 0:
            warnings.warn(
                f"{prefix}alpha=0: the temperature is {prefix}tau_base={tau_base} at any alignment, so "
                f"{prefix}alignment_base={alignment_base} has no effect; raise {prefix}alpha or leave it out",
                stacklevel=4,
            )
        lowest = 1 + alpha * (-1 - alignment_base)
        self.formula = f"{tau_base} * (1 + {alpha} * (A - {alignment_base}))"
        if alpha > 1:
            warnings.warn(
                f"{prefix}alpha={alpha} exceeds 1: the temperature {self.formula} is positive only above an alignment "
                f"of {alignment_base - 1 / alpha:.3g}; a step below that is refused",
                stacklevel=4,
            )
        elif lowest < 0:
            raise ValueError(
                f"{prefix}alpha={alpha} with {prefix}alignment_base={alignment_base}: the temperature {self.formula} "
                f"falls below 0 for alignments under {alignment_base - 1 / alpha:.3g}"
            )
        self._may_fail = lowest <= 0
        self.tau_base, self.alpha, self.alignment_base = tau_base, alpha, alignment_base

    def __call__(self, alignment: Float[Tensor, "anchors 1"]) -> Float[Tensor, "anchors 1"]:
        """Return the temperatures.

        Raises:
            ValueError: one of them is not positive, on whichever rank; raised on all.
        """
        if self._may_fail:  # alike on all ranks, so that none is left waiting for one that has raised
            lowest = -reduce_max(-alignment.min()).item()
            if not 1 + self.alpha * (lowest - self.alignment_base) > 0:
                raise ValueError(f"the temperature {self.formula} is not positive at an alignment of {lowest:.4g}")
        return self.tau_base * (1 + self.alpha * (alignment - self.alignment_base))


class MovingAlignment:
    """The moving average of the alignment of this batch's anchors, computed before it is written."""

    def __init__(self, table: AnchorTable, anchors: Anchors, mu: float) -> None:
        occurrences = anchors.occurrences
        seen = occurrences.mean(anchors.alignment)
        old = table.look_up("alignment", occurrences.ids)
        self._table, self._ids = table, occurrences.ids
        self._new = torch.where(old.isnan(), seen, (1 - mu) * old + mu * seen)
        local = occurrences.to_local(self._new, math.nan)
        self.for_anchors = torch.where(local.isnan(), anchors.alignment, local)  # those without negatives

    def write_(self) -> None:
        """Store the new values."""
        self._table.update_(self._ids, alignment=self._new)


def compute_reweighted_value(margin: Float[Tensor, "anchors 1"]) -> Float[Tensor, "anchors 1"]:
    """``softplus(z) / sigmoid(z) = (1 + exp(-z)) * log(1 + exp(z))`` without overflow.

    Below -20 the quotient is ``1 + exp(z)/2`` to float64's precision (next term of the series: ``-exp(2z)/6``).
    """
    moderate = margin.clamp(min=-20)
    exact = compute_softplus(moderate) * (1 + torch.exp(-moderate))
    return torch.where(margin < -20, 1 + torch.exp(margin.clamp(max=0)) / 2, exact)
