"""Define the base class of every loss: its settings as checked fields, and its rules as pure methods.

A loss is a class of settings in one file of ``bimodal_cl/losses``. The schema, ``build_loss`` and ``--help`` read its
fields; :class:`~bimodal_cl.losses.module.contrastive.ContrastiveLoss` calls its rules and keeps the state between the
steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from jaxtyping import Bool, Float, Int
from pydantic import Field

from bimodal_cl.settings import Count, Section

# `--help` and `--print-config` read the settings, and loading torch takes seconds. So a declaration names torch's types
# for the type checker alone, computes with methods of tensors, and imports what else it needs where it is called.
if TYPE_CHECKING:
    from torch import Tensor

    from bimodal_cl.losses.margin import Margins, Negatives
    from bimodal_cl.losses.tables.occurrences import Occurrences
else:
    Tensor = Margins = Negatives = Occurrences = Any

Modality = Literal["image", "text"]
Columns = Mapping[str, Float[Tensor, "ids 1"]]
Features = Float[Tensor, "batch dim"]
FeatureLoss = tuple[Float[Tensor, ""] | None, Features, Features]


@dataclasses.dataclass(frozen=True)
class Learned:
    """A number that the optimizer learns.

    Attributes:
        initial: its first value.
        largest: upper bound, to which it is clamped before every step; None: no bound.
    """

    initial: float
    largest: float | None = None


@dataclasses.dataclass(frozen=True)
class Anchors:
    """This process's anchors of one modality: what a temperature rule reads.

    Attributes:
        modality: ``"image"`` or ``"text"``.
        ids: the anchors' ids.
        alignment: cosine of each anchor with its positive, without gradient.
        has_negatives: an anchor without negatives contributes nothing and keeps its state.
        occurrences: the anchors with negatives of the global batch, grouped by id.
        columns: the table's columns for the ids of ``occurrences`` before this step; empty without a table.
        learned: the values of :meth:`LossSettings.learned`; their gradient is averaged over the ranks.
        progress: the share of the training that is done: 0 in the first of N steps, (N - 1)/N in the last.
    """

    modality: Modality
    ids: Int[Tensor, " anchors"]
    alignment: Float[Tensor, "anchors 1"]
    has_negatives: Bool[Tensor, "anchors 1"]
    occurrences: Occurrences
    columns: Columns
    learned: Mapping[str, Float[Tensor, ""]]
    progress: float


@dataclasses.dataclass(frozen=True)
class Direction(Anchors):
    """One direction of a step, anchors to candidates: what a weight rule reads.

    Attributes:
        tau: the anchors' temperatures in this step.
        margins: see :class:`~bimodal_cl.losses.margin.Margins`.
    """

    tau: Float[Tensor, "anchors 1"]
    margins: Margins


@dataclasses.dataclass(frozen=True)
class AnchorStep:
    """What a weight rule returns for one direction.

    Attributes:
        losses: each anchor's loss; its gradient in the margin is the weight. Values of anchors without negatives are
            not used.
        columns: new values of table columns for ``direction.occurrences.ids``; written in ``train()`` mode.
        metrics: values to log. Their mean over the anchors of the global batch that have negatives appears as
            ``NAME_image`` or ``NAME_text`` in ``LossOutput.metrics`` and ``metrics.jsonl``. They are detached here;
            ``tau`` is taken.
    """

    losses: Float[Tensor, "anchors 1"]
    columns: Columns = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, Float[Tensor, "anchors 1"]] = dataclasses.field(default_factory=dict)


class LossSettings(Section):
    """The settings of every loss, and the rules that a loss may override. The fields are the keyword arguments.

    A subclass in a file of ``bimodal_cl/losses`` adds ``name: Literal["..."]`` and its own fields. All rules are pure:
    they change neither the settings nor the state.
    """

    if TYPE_CHECKING:  # declared by each loss, after the fields that all have
        name: str

    tile_size: Count | Literal["auto"] | None = Field(
        "auto", description="side of the tiles of similarities held at a time; auto: by batch and memory; null: all"
    )
    mask_repeats: bool = Field(True, description="captions of the same image and repeats are not negatives")

    def concerns(self) -> Iterator[str]:
        """Say which settings leave others without effect; ``build_loss`` warns of each."""
        yield from ()

    def concerns_of_batch(self, num_negatives: int) -> Iterator[str]:
        """Say which settings do not fit a batch with so many negatives; the first step warns of each."""
        yield from ()

    def scheduled(self) -> tuple[str, ...]:
        """Return names of what depends on ``anchors.progress``, for the warning where nobody sets the progress."""
        return ()

    def learned(self) -> dict[str, Learned]:
        """Return the numbers that the optimizer learns, by the name of the module's parameter."""
        return {}

    def table_columns(self) -> dict[str, float]:
        """Return name and initial value of each column of the per-anchor tables; empty where there are no tables."""
        return {}

    def temperature(self, anchors: Anchors) -> Float[Tensor, "anchors 1"]:
        """Temperature rule: return the temperature of each anchor of one modality.

        Raises:
            ValueError: a temperature that is not positive; raised on every rank.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no temperature(self, anchors)")

    def own_tau(self, modality: Modality, columns: Mapping[str, Any]) -> Any:
        """Return every anchor's own temperature from whole table columns ``[N]`` (of numpy or of torch).

        None where anchors have no temperature of their own.
        """
        return columns.get("tau")

    def feature_loss(self, images: Features, texts: Features, anchors: Anchors, negatives: Negatives) -> FeatureLoss:
        """Return a loss of the features themselves, and the features that the margins are computed from.

        Its mean over the ranks is the loss; its gradient on a rank is that of the sum of all ranks' losses. It is added
        to the loss of the margins. None: there is none.

        Args:
            images: unit-norm features of this process's images; ``texts`` likewise.
            anchors: of the images; the learned numbers are in it.
            negatives: which pairs of the global batch are negatives.
        """
        return None, images, texts


class MarginSettings(LossSettings):
    """Settings of a loss on the margin: ``(L_image + L_text) / 2``, each a mean over the anchors of one modality."""

    products: Literal["float32", "bf16"] = Field(
        "float32", description="bf16: faster matrix products of rounded features; sums and state stay float32"
    )

    def anchor_losses(self, direction: Direction) -> AnchorStep:
        """Weight rule: return the loss of each anchor of one direction, and the new state. Called once a direction."""
        raise NotImplementedError(f"{type(self).__name__} defines no anchor_losses(self, direction)")


class TableSettings(MarginSettings):
    """The settings of every loss with per-anchor tables; see :class:`~bimodal_cl.losses.tables.anchors.AnchorTable`."""

    tables: Literal["replicated", "sharded"] = Field(
        "replicated", description="every rank keeps all rows of the per-anchor tables, or its share of them"
    )
    table_device: Literal["cpu"] | None = Field(None, description="cpu: tables stay there; null: on the train.device")


def refuse_unused(settings: Section, because: str, *names: str) -> None:
    """Refuse fields that were set though another one leaves them without effect.

    Args:
        settings: the settings that hold the fields.
        because: what makes them useless, such as ``"eta_schedule='constant'"``.
        names: the fields.

    Raises:
        ValueError: one of them is not at its default.
    """
    for name in names:
        value = getattr(settings, name)
        if value != type(settings).model_fields[name].default:
            raise ValueError(f"{name}={value!r} has no effect with {because}: leave it out")
