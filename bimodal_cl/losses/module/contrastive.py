"""Run any loss: checks, per-anchor tables, learned numbers, the mean over the global batch, metrics.

What differs between losses is in their settings, one file each in ``bimodal_cl/losses``: a temperature rule and a
weight rule over the margins, or a loss of the features.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bimodal_cl.distributed import reduce_sum, replicated_parameter, world_size
from bimodal_cl.losses.margin import Negatives, compute_alignment, compute_margins
from bimodal_cl.losses.margin.kernels import Kernel
from bimodal_cl.losses.module.batch_checks import require_sound_batch
from bimodal_cl.losses.module.rule_checks import collect_metrics, compute_temperature
from bimodal_cl.losses.rules.base import (
    Anchors,
    AnchorStep,
    Direction,
    LossSettings,
    MarginSettings,
    Modality,
    TableSettings,
)
from bimodal_cl.losses.tables.anchors import AnchorTable, widen_exactly_
from bimodal_cl.losses.tables.occurrences import Occurrences


@dataclasses.dataclass(frozen=True)
class BatchValues:
    """This process's part of a step's batch, without gradient, for whoever describes it further.

    Attributes:
        tau_image: the temperature of each image in this step, ``[batch, 1]``; ``tau_text`` likewise.
        image_features: as they were given, ``[batch, dim]``; ``text_features`` likewise.
    """

    tau_image: Tensor
    tau_text: Tensor
    image_features: Tensor
    text_features: Tensor


@dataclasses.dataclass(frozen=True)
class LossOutput:
    """A step's loss.

    Attributes:
        loss: scalar, the mean over the anchors of the global batch and over both directions, equal on every rank.
            Its gradient on a rank is such that data-parallel averaging gives the gradient of this value.
        metrics: 0-d tensors without gradient, equal on every rank: ``tau_image``, ``tau_text`` (means over the batch),
            ``alignment`` (mean cosine of the positives), ``anchors_without_negatives`` (count), for losses on margins
            ``kl_image``, ``kl_text`` (means of :attr:`~bimodal_cl.losses.margin.Margins.kl`), and the loss's own.
        batch: temperatures and features of this process's pairs.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
    batch: BatchValues


class ContrastiveLoss(nn.Module):
    """A contrastive loss: call it with unit-norm features and ids, get a :class:`LossOutput`.

    Works in any training loop: with ``torch.distributed`` initialised it contrasts over all ranks, otherwise over the
    batch. Per-anchor state moves in ``train()`` mode only. :func:`~bimodal_cl.losses.build_loss` makes one from plain
    keyword arguments.

    Args:
        settings: the loss's hyperparameters and rules.
        num_images: number of images of the data set; None where the loss keeps nothing per anchor.
        num_texts: number of texts of the data set, or None.

    Attributes:
        image_anchors: the images' state, None where the loss keeps none; ``text_anchors`` likewise.
        kernel: which code computes the margins, to be set where the choice made by
            :func:`~bimodal_cl.losses.margin.kernels.choose_kernel` is not wanted.
        progress: see :meth:`set_progress`; None until it is called.

    Raises:
        ValueError: a table of no rows.
    """

    def __init__(self, settings: LossSettings, num_images: int | None, num_texts: int | None) -> None:
        super().__init__()
        self.settings, self.num_images, self.num_texts = settings, num_images, num_texts
        self.kernel: Kernel = "auto"
        self.progress: float | None = None
        self.image_anchors: AnchorTable | None = None
        self.text_anchors: AnchorTable | None = None
        columns = settings.table_columns()
        if columns:
            assert isinstance(settings, TableSettings) and num_images is not None and num_texts is not None
            self.image_anchors = AnchorTable(num_images, settings.tables, settings.table_device, **columns)
            self.text_anchors = AnchorTable(num_texts, settings.tables, settings.table_device, **columns)
        self._learned = settings.learned()
        for name, learned in self._learned.items():
            self.register_parameter(name, nn.Parameter(torch.tensor(learned.initial)))
        self._seen_a_batch = False

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ContrastiveLoss:
        def keep_precision(tensor: Tensor) -> Tensor:  # `.half()` and `.bfloat16()` do not lower it
            moved = fn(tensor)
            return tensor.to(moved.device) if moved.dtype in (torch.float16, torch.bfloat16) else moved

        super()._apply(keep_precision, recurse)
        for name, learned in self._learned.items():
            widen_exactly_(self.get_parameter(name).data, learned.initial)
        return self

    def extra_repr(self) -> str:
        """Return the loss's name and its hyperparameters, for ``repr``."""
        return ", ".join(f"{key}={value!r}" for key, value in self.settings)

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

    def forward(
        self,
        image_features: Float[Tensor, "batch dim"],
        text_features: Float[Tensor, "batch dim"],
        image_ids: Int[Tensor, " batch"],
        text_ids: Int[Tensor, " batch"],
    ) -> LossOutput:
        """Compute the loss of this process's pairs within the global batch, and update the per-anchor state.

        Args:
            image_features: unit-norm; low-precision features are converted to float32 here.
            text_features: unit-norm; row ``i`` belongs to row ``i`` of ``image_features``.
            image_ids: 0 .. num_images - 1, stable over the whole training.
            text_ids: 0 .. num_texts - 1, stable, too.

        Raises:
            ValueError: what :func:`~bimodal_cl.losses.module.batch_checks.require_sound_batch` or the temperature rule
                refuses, on every rank, before any state moves.
        """
        require_sound_batch(image_features, text_features, image_ids, text_ids, self.num_images, self.num_texts)
        settings = self.settings
        with torch.autocast(image_features.device.type, enabled=False):
            dtype = torch.promote_types(torch.promote_types(image_features.dtype, text_features.dtype), torch.float32)
            images, texts = image_features.to(dtype), text_features.to(dtype)
            negatives = Negatives.gather(image_ids.long(), text_ids.long(), settings.mask_repeats)
            self._warn_once(negatives)
            self._clamp_learned_()
            alignment = compute_alignment(images, texts)
            image = self._make_anchors("image", image_ids.long(), alignment, negatives)
            text = self._make_anchors("text", text_ids.long(), alignment, negatives)
            tau_image, tau_text = compute_temperature(settings, image), compute_temperature(settings, text)
            local, images, texts = settings.feature_loss(images, texts, image, negatives)
            steps: dict[str, AnchorStep] = {}
            reached: dict[str, dict[str, Tensor]] = {}
            if isinstance(settings, MarginSettings):
                margins_image, margins_text = compute_margins(
                    images,
                    texts,
                    tau_image,
                    tau_text,
                    negatives,
                    settings.tile_size,
                    products=settings.products,
                    kernel=self.kernel,
                )
                steps["image"] = settings.anchor_losses(Direction(**vars(image), tau=tau_image, margins=margins_image))
                steps["text"] = settings.anchor_losses(Direction(**vars(text), tau=tau_text, margins=margins_text))
                reached = {"image": {"kl": margins_image.kl}, "text": {"kl": margins_text.kl}}
                means = [torch.where(image.has_negatives, step.losses, 0.0).mean() for step in steps.values()]
                of_margins = (means[0] + means[1]) / 2
                local = of_margins if local is None else of_margins + local
            assert local is not None, "a loss has a rule for anchors or one for features"
            metrics = {"tau_image": tau_image.mean(), "tau_text": tau_text.mean(), "alignment": alignment.mean()}
            metrics["anchors_without_negatives"] = (~image.has_negatives).sum().to(dtype) * world_size()
            own = collect_metrics(reached, image.has_negatives)
            of_rule = {modality: step.metrics for modality, step in steps.items()}
            own |= collect_metrics(of_rule, image.has_negatives, taken={*metrics, *own})
            totals = reduce_sum(torch.stack([local, *metrics.values(), *own.values()])) / world_size()
        if self.training:  # every check has passed
            self._write_(image, steps)
            self._write_(text, steps)
        logged = dict(zip([*metrics, *own], totals[1:].unbind(), strict=True))
        if own:
            counted = 1 - logged["anchors_without_negatives"] / (len(image_ids) * world_size())
            logged |= {name: torch.where(counted > 0, logged[name] / counted, 0.0) for name in own}
        batch = BatchValues(tau_image.detach(), tau_text.detach(), image_features.detach(), text_features.detach())
        return LossOutput(_ReportedValue.apply(local, totals[0]), logged, batch)

    def _warn_once(self, negatives: Negatives) -> None:
        """Warn of settings that do not fit the first batch, and of a schedule whose progress was never set."""
        concerns: list[str] = []
        if not self._seen_a_batch:
            self._seen_a_batch = True
            concerns += self.settings.concerns_of_batch(int(negatives.of_own_anchors.max()))
        scheduled = self.settings.scheduled()
        if scheduled and self.progress is None:
            self.progress = 0.0
            verb = "is" if len(scheduled) == 1 else "are"
            concerns.append(
                f"{' and '.join(scheduled)} {verb} scheduled, but set_progress was never called: taken as 0"
            )
        for concern in concerns:
            warnings.warn(concern, stacklevel=4)

    def _clamp_learned_(self) -> None:
        for name, learned in self._learned.items():
            if learned.largest is not None:
                with torch.no_grad():
                    getattr(self, name).clamp_(max=learned.largest)

    def _make_anchors(self, modality: Modality, ids: Tensor, alignment: Tensor, negatives: Negatives) -> Anchors:
        """Group one modality's anchors by id and collect what its rules read."""
        table = self._table_of(modality)
        has_negatives = negatives.of_own_anchors > 0
        occurrences = Occurrences(ids, has_negatives, table)
        return Anchors(
            modality,
            ids,
            alignment,
            has_negatives,
            occurrences,
            columns={} if table is None else {name: occurrences.look_up(name) for name in table.columns},
            # The gradient is averaged over ranks, so that the parameters stay equal in any training loop.
            learned={name: replicated_parameter(getattr(self, name)) for name in self._learned},
            progress=self.progress or 0.0,
        )

    def _write_(self, anchors: Anchors, steps: dict[str, AnchorStep]) -> None:
        table = self._table_of(anchors.modality)
        if table is not None:
            columns = {name: values.detach() for name, values in steps[anchors.modality].columns.items()}
            table.update_(anchors.occurrences.ids, **columns)

    def _table_of(self, modality: Modality) -> AnchorTable | None:
        return self.image_anchors if modality == "image" else self.text_anchors


class _ReportedValue(torch.autograd.Function):
    """The global value, bit-identical on every rank, with the gradient of this rank's value."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
