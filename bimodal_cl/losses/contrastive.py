"""What all losses share: checks, the mean over the global batch, the metrics; and the two directions of most of them.

A loss on the primitive is a temperature rule (:meth:`MarginLoss.temperature`) and a weight rule
(:meth:`MarginLoss.anchor_losses`); one file of this folder each.
"""

from __future__ import annotations

import abc
import dataclasses
import math
import numbers
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bimodal_cl.distributed import reduce_sum, world_size
from bimodal_cl.losses.batch_checks import require_sound_batch
from bimodal_cl.losses.margin import Margins, Negatives, compute_alignment, compute_margins
from bimodal_cl.losses.margin.kernels import Kernel
from bimodal_cl.losses.margin.products import Products
from bimodal_cl.losses.margin.tiles import TileSize
from bimodal_cl.losses.tables.anchors import AnchorTable, widen_exactly_
from bimodal_cl.losses.tables.occurrences import Occurrences


@dataclasses.dataclass(frozen=True)
class LossOutput:
    """A step's loss.

    Attributes:
        loss: scalar, the mean over the anchors of the global batch and over both directions, equal on every rank.
            Its gradient on a rank is such that data-parallel averaging gives the gradient of this value.
        metrics: 0-d tensors without gradient, equal on every rank: ``tau_image``, ``tau_text`` (means over the batch),
            ``alignment`` (mean cosine of the positives), ``anchors_without_negatives`` (count).
    """

    loss: Tensor
    metrics: dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Anchors:
    """This process's anchors of one modality: what a temperature rule reads.

    Attributes:
        modality: ``"image"`` or ``"text"``.
        ids: the anchors' ids.
        alignment: cosine of each with its positive, without gradient.
        has_negatives: an anchor without any contributes nothing and keeps its state.
        occurrences: those with negatives of the global batch, grouped by id, and the rows of their table.
    """

    modality: str
    ids: Int[Tensor, " anchors"]
    alignment: Float[Tensor, "anchors 1"]
    has_negatives: Bool[Tensor, "anchors 1"]
    occurrences: Occurrences


@dataclasses.dataclass(frozen=True)
class Direction(Anchors):
    """One direction of a step, anchors to candidates: what a weight rule reads besides.

    Attributes:
        tau: the anchors' temperatures in this step.
        margins: see :class:`Margins`.
    """

    tau: Float[Tensor, "anchors 1"]
    margins: Margins


class ContrastiveLoss(nn.Module, abc.ABC):
    """Base of all losses: call it with unit-norm features and ids, get a :class:`LossOutput`.

    Works in any training loop: with ``torch.distributed`` initialised it contrasts over all ranks, otherwise over the
    batch. Per-anchor state moves in ``train()`` mode only.

    Args:
        num_images: number of images of the data set; None where the loss keeps nothing per anchor.
        num_texts: number of texts of the data set; None likewise.
        tile_size: rows and columns of similarities held at a time; ``"auto"`` chooses from the batch and the free
            memory, None holds all of them; see :func:`~bimodal_cl.losses.margin.tiles.choose_tiling`.
        mask_repeats: other captions of the same image and repeats of the same caption are not negatives.

    Raises:
        ValueError: a hyperparameter is out of range; the message gives its value.
    """

    def __init__(self, num_images: int | None, num_texts: int | None, tile_size: TileSize, mask_repeats: bool) -> None:
        super().__init__()
        if tile_size is not None and tile_size != "auto" and (not isinstance(tile_size, int) or tile_size < 1):
            raise ValueError(f"tile_size={tile_size!r} must be at least 1, 'auto', or None for one tile")
        self.num_images, self.num_texts = num_images, num_texts
        self.tile_size, self.mask_repeats = tile_size, mask_repeats
        self.progress: float | None = None
        self.image_anchors: AnchorTable | None = None
        self.text_anchors: AnchorTable | None = None
        self._learned: dict[str, float] = {}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ContrastiveLoss:
        def keep_precision(tensor: Tensor) -> Tensor:  # `.half()` and `.bfloat16()` move nothing below float32
            moved = fn(tensor)
            return tensor.to(moved.device) if moved.dtype in (torch.float16, torch.bfloat16) else moved

        super()._apply(keep_precision, recurse)
        for name, initial in self._learned.items():
            widen_exactly_(self.get_parameter(name).data, initial)
        return self

    def learn(self, name: str, initial: float) -> None:
        """Add a number that the optimizer learns, as the parameter ``name``."""
        self._learned[name] = initial
        self.register_parameter(name, nn.Parameter(torch.tensor(initial)))

    def set_progress(self, progress: float) -> None:
        """Tell a scheduled hyperparameter how much of the training is done.

        Args:
            progress: steps done over all steps, in [0, 1].

        Raises:
            ValueError: outside that range.
        """
        if not 0 <= progress <= 1:
            raise ValueError(f"progress={progress} must be between 0 and 1")
        self.progress = progress

    def scheduled_progress(self, what: str) -> float:
        """Return the progress for a schedule; warn and return 0 where nobody has set it."""
        if self.progress is None:
            warnings.warn(f"{what} is scheduled, but set_progress was never called: taken as 0", stacklevel=3)
            self.progress = 0.0
        return self.progress

    def forward(
        self,
        image_features: Float[Tensor, "batch dim"],
        text_features: Float[Tensor, "batch dim"],
        image_ids: Int[Tensor, " batch"],
        text_ids: Int[Tensor, " batch"],
    ) -> LossOutput:
        """Compute the loss of this process's pairs within the global batch, and update the per-anchor state.

        Args:
            image_features: unit-norm; low-precision features are taken to float32 here.
            text_features: unit-norm; row ``i`` belongs to row ``i`` of ``image_features``.
            image_ids: 0 .. num_images - 1, stable over the whole training.
            text_ids: 0 .. num_texts - 1, likewise.

        Raises:
            ValueError: what :func:`~bimodal_cl.losses.batch_checks.require_sound_batch` refuses, on every rank, before
                any state moves.
        """
        require_sound_batch(image_features, text_features, image_ids, text_ids, self.num_images, self.num_texts)
        image_ids, text_ids = image_ids.long(), text_ids.long()
        with torch.autocast(image_features.device.type, enabled=False):
            dtype = torch.promote_types(torch.promote_types(image_features.dtype, text_features.dtype), torch.float32)
            image_features, text_features = image_features.to(dtype), text_features.to(dtype)
            alignment = compute_alignment(image_features, text_features)
            negatives = Negatives.gather(image_ids, text_ids, self.mask_repeats)
            has_negatives = negatives.of_own_anchors > 0
            of_images = Occurrences(image_ids, has_negatives, self.image_anchors)
            of_texts = Occurrences(text_ids, has_negatives, self.text_anchors)
            image = Anchors("image", image_ids, alignment, has_negatives, of_images)
            text = Anchors("text", text_ids, alignment, has_negatives, of_texts)
            local, tau_image, tau_text = self.local_loss(image_features, text_features, image, text, negatives)
            alone = (~has_negatives).sum().to(local.dtype)
            means = torch.stack([local, tau_image.mean(), tau_text.mean(), alignment.mean(), alone * world_size()])
            means = reduce_sum(means) / world_size()
        loss = _ReportedValue.apply(local, means[0])
        names = ("tau_image", "tau_text", "alignment", "anchors_without_negatives")
        return LossOutput(loss, dict(zip(names, means[1:].unbind(), strict=True)))

    @abc.abstractmethod
    def local_loss(
        self,
        image_features: Float[Tensor, "batch dim"],
        text_features: Float[Tensor, "batch dim"],
        image: Anchors,
        text: Anchors,
        negatives: Negatives,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "batch 1"], Float[Tensor, "batch 1"]]:
        """Return this process's loss, whose mean over the ranks is the loss, and its anchors' temperatures.

        The loss's gradient on a rank is that of the sum of all ranks' losses.
        """


class _ReportedValue(torch.autograd.Function):
    """The global value, the same bits on every rank, with the gradient of this rank's."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class MarginLoss(ContrastiveLoss):
    """Base of the losses on the primitive: ``(L_image + L_text) / 2``, each a mean over the anchors of one modality.

    Args:
        num_images: see :class:`ContrastiveLoss`; so are ``num_texts``, ``tile_size`` and ``mask_repeats``.
        products: ``"float32"``, or ``"bf16"`` for matrix products of features and weights rounded to bf16; all else
            stays float32. See :mod:`~bimodal_cl.losses.margin.products`. float64 features stay float64.

    Attributes:
        kernel: which code computes the margins, to be set where the choice made by
            :func:`~bimodal_cl.losses.margin.kernels.choose_kernel` is not wanted.
    """

    def __init__(
        self,
        num_images: int | None,
        num_texts: int | None,
        tile_size: TileSize,
        mask_repeats: bool,
        products: Products,
    ) -> None:
        super().__init__(num_images, num_texts, tile_size, mask_repeats)
        require_choice("products", products, ("float32", "bf16"))
        self.products: Products = products
        self.kernel: Kernel = "auto"

    @abc.abstractmethod
    def temperature(self, anchors: Anchors) -> Float[Tensor, "anchors 1"]:
        """Temperature rule: the temperature of each anchor of one modality. Moves no state."""

    @abc.abstractmethod
    def anchor_losses(self, direction: Direction) -> Float[Tensor, "anchors 1"]:
        """Weight rule: the loss of each anchor of one direction, whose gradient in the margin is the weight.

        Called once for each direction; updates the state of the direction's anchors in ``train()`` mode. Values of
        anchors without negatives are not used.
        """

    def local_loss(
        self,
        image_features: Float[Tensor, "batch dim"],
        text_features: Float[Tensor, "batch dim"],
        image: Anchors,
        text: Anchors,
        negatives: Negatives,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "batch 1"], Float[Tensor, "batch 1"]]:
        """Compute both directions' margins and the mean of the anchors' losses."""
        tau_image, tau_text = self.temperature(image), self.temperature(text)
        margins_image, margins_text = compute_margins(
            image_features,
            text_features,
            tau_image,
            tau_text,
            negatives,
            self.tile_size,
            products=self.products,
            kernel=self.kernel,
        )
        direction_image = Direction(**vars(image), tau=tau_image, margins=margins_image)
        direction_text = Direction(**vars(text), tau=tau_text, margins=margins_text)
        local = (self._mean_loss(direction_image) + self._mean_loss(direction_text)) / 2
        return local, tau_image, tau_text

    def _mean_loss(self, direction: Direction) -> Tensor:
        losses = self.anchor_losses(direction)
        return torch.where(direction.has_negatives, losses, 0.0).mean()


def require_between(name: str, value: float, low: float, high: float, *, low_open: bool = False) -> None:
    """Refuse a hyperparameter that is not finite or outside ``[low, high]`` (``(low, high]`` where ``low_open``).

    Raises:
        ValueError: with the name, the value and the range.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"{name}={value!r} must be a number")
    if not math.isfinite(value) or not (low < value if low_open else low <= value) or not value <= high:
        left = "(" if low_open else "["
        raise ValueError(f"{name}={value} must be in {left}{low}, {high}]")


def require_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuse a value that is none of the choices.

    Raises:
        ValueError: with the name, the value and the choices.
    """
    if value not in choices:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(repr(choice) for choice in choices)}")


def refuse_unused(because: str, **values: tuple[object, object]) -> None:
    """Refuse hyperparameters that were set though another one leaves them without effect.

    Args:
        because: what makes them useless, such as ``"eta_schedule='constant'"``.
        values: by name, the value given and the default.

    Raises:
        ValueError: one of them is not at its default.
    """
    for name, (value, default) in values.items():
        if value != default:
            raise ValueError(f"{name}={value!r} has no effect with {because}: leave it out")
