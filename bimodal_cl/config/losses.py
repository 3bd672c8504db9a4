"""The section ``loss``: the keys of each loss."""

from __future__ import annotations

from typing import Annotated, Literal, Union

from pydantic import Field

from bimodal_cl.settings import BelowOne, Cosine, Count, Fraction, NotNegative, NotTruth, Positive, Section, Weight


class LossSection(Section):
    """What every loss takes."""

    tile_size: Count | Literal["auto"] | None = Field(
        "auto", description="side of the tiles of similarities held at a time; auto: by batch and memory; null: all"
    )
    mask_repeats: bool = Field(True, description="captions of the same image and repeats are not negatives")


class MarginSection(LossSection):
    """What every loss on the margin takes."""

    products: Literal["float32", "bf16"] = Field(
        "float32", description="bf16: faster matrix products of rounded features; sums and state stay float32"
    )


class TableSection(MarginSection):
    """What every loss with per-anchor tables takes."""

    tables: Literal["replicated", "sharded"] = Field(
        "replicated", description="every rank keeps all rows of the per-anchor tables, or its share of them"
    )
    table_device: Literal["cpu"] | None = Field(None, description="cpu: tables stay there; null: on the train.device")


class CLIP(MarginSection):
    """CLIP: cross-entropy with one learned temperature."""

    name: Literal["clip"]
    tau_init: Positive = Field(0.07, description="initial temperature")
    tau_min: Positive = Field(0.01, description="the temperature stays above it")


class SigLIP(LossSection):
    """SigLIP (Zhai et al., ICCV 2023): a sigmoid for every pair, with learned temperature and bias."""

    name: Literal["siglip"]
    tau_init: Positive = Field(0.1, description="initial temperature")
    tau_min: Positive = Field(0.01, description="the temperature stays above it")
    bias_init: Annotated[float, Field(ge=-1e4, le=1e4), NotTruth] = Field(
        -10.0, description="initial bias of the logits"
    )


class CyCLIP(MarginSection):
    """CyCLIP (Goel et al., NeurIPS 2022): CLIP with cyclic consistency."""

    name: Literal["cyclip"]
    tau_init: Positive = Field(0.07, description="initial temperature")
    tau_min: Positive = Field(0.01, description="the temperature stays above it")
    lambda_in_modal: NotNegative = Field(0.25, description="weight: two images are as similar as their texts")
    lambda_cross_modal: NotNegative = Field(0.25, description="weight: image j, text k as similar as image k, text j")


class MACL(TableSection):
    """MACL (Huang et al., ICML 2023)."""

    name: Literal["macl"]
    tau_base: Positive = Field(0.1, description="temperature at the base alignment")
    alpha: NotNegative = Field(0.5, description="how strongly the temperature follows the alignment")
    alignment_base: Cosine = Field(0.0, description="alignment with tau = tau_base")
    alignment: Literal["batch", "anchor"] = Field("batch", description="of the batch, or one for each image and text")
    mu: Weight = Field(0.1, description="anchor: weight of the new alignment")
    reweight: bool = Field(True, description="gradient scale one; false is the paper's ablation")
    text_tau_base: Positive | None = Field(None, description="texts' tau_base; null: the images'")
    text_alpha: NotNegative | None = Field(None, description="texts' alpha; null: the images'")
    text_alignment_base: Cosine | None = Field(None, description="texts' alignment_base; null: the images'")


class SogCLR(TableSection):
    """SogCLR (Yuan et al., ICML 2022)."""

    name: Literal["sogclr"]
    tau: Positive = Field(0.05, description="fixed temperature")
    gamma: Weight = Field(0.8, description="weight of the new value in u")
    gamma_schedule: Literal["constant", "cosine"] = Field(
        "constant", description="cosine: from 1 to gamma by half time"
    )


class ISogCLR(TableSection):
    """iSogCLR (Qiu et al., ICML 2023)."""

    name: Literal["isogclr"]
    tau_init: Positive = Field(0.01, description="initial temperature of every image and text")
    tau_min: Positive = Field(0.005, description="lower bound of the temperatures")
    tau_max: Positive = Field(1.0, description="upper bound of the temperatures")
    gamma: Weight = Field(0.8, description="weight of the new value in u")
    gamma_schedule: Literal["constant", "cosine"] = Field(
        "constant", description="cosine: from 1 to gamma by half time"
    )
    rho: NotNegative = Field(6.0, description="KL radius; above log of the negatives, tau falls to tau_min")
    rho_fraction: Fraction | None = Field(None, description="rho as a share of log of the negatives, instead of rho")
    beta: Weight = Field(0.9, description="weight of the new temperature gradient")
    eta: Positive = Field(0.03, description="step size of the temperatures")
    eta_schedule: Literal["constant", "cosine", "exp"] = Field(
        "constant", description="how eta falls over the training"
    )
    eta_min: NotNegative = Field(1e-4, description="cosine, exp: what eta falls towards")
    eta_decay: Weight = Field(0.00124, description="exp: what is left of eta - eta_min at the end")
    tau_optimizer: Literal["momentum", "adam"] = Field(
        "momentum", description="of the temperatures (FastCLIP-v2: adam)"
    )
    adam_beta1: BelowOne = Field(0.9, description="adam: weight of the old mean gradient")
    adam_beta2: BelowOne = Field(0.999, description="adam: weight of the old mean square")
    adam_eps: Positive = Field(1e-8, description="adam: added to the denominator")


class RGCLGlobal(TableSection):
    """RGCL-g (FastCLIP-v3, arXiv 2407.01445): SogCLR's average with one learned temperature and a KL radius."""

    name: Literal["rgcl_g"]
    tau_init: Positive = Field(0.07, description="initial temperature")
    tau_min: Positive = Field(0.01, description="the temperature stays above it")
    gamma: Weight = Field(0.2, description="weight of the new value in u")
    gamma_schedule: Literal["constant", "cosine"] = Field("cosine", description="cosine: from 1 to gamma by half time")
    rho: NotNegative = Field(6.5, description="KL radius; above log of the negatives, tau falls to tau_min")
    rho_fraction: Fraction | None = Field(None, description="rho as a share of log of the negatives, instead of rho")


Loss = Annotated[
    Union[CLIP, SigLIP, CyCLIP, MACL, SogCLR, ISogCLR, RGCLGlobal],  # noqa: UP007 (help reads it)
    Field(discriminator="name"),
]
