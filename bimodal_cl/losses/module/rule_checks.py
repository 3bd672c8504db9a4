"""Call the rules of a loss, and say in one line what is wrong with a rule that returns something else."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bimodal_cl.losses.rules.base import Anchors, LossSettings


def compute_temperature(settings: LossSettings, anchors: Anchors) -> Float[Tensor, "anchors 1"]:
    """Return what the temperature rule of a loss says.

    Raises:
        TypeError: the rule returns no tensor ``[anchors, 1]``.
        ValueError: the rule refuses the batch.
    """
    tau = settings.temperature(anchors)
    _require_values(settings.name, "temperature", tau, anchors.alignment)
    return tau


def collect_metrics(
    metrics: Mapping[str, Mapping[str, Tensor]], has_negatives: Bool[Tensor, "anchors 1"], taken: Collection[str] = ()
) -> dict[str, Tensor]:
    """Average metrics, such as those that a loss's weight rule returns, over this process's anchors.

    Args:
        metrics: values of the anchors by name, by modality.
        has_negatives: anchors without negatives count as 0.
        taken: names that every loss logs.

    Returns:
        0-d tensors without gradient by ``NAME_image`` and ``NAME_text``.

    Raises:
        TypeError: a metric is no tensor ``[anchors, 1]``, or has a name that every loss logs.
    """
    means: dict[str, Tensor] = {}
    for modality, values_of in metrics.items():
        for name, values in values_of.items():
            logged = f"{name}_{modality}"
            if logged in taken:
                raise TypeError(f"metric '{name}' of a weight rule: every loss logs a '{logged}'; choose another name")
            _require_values(f"metric '{name}'", "anchor_losses", values, has_negatives)
            means[logged] = torch.where(has_negatives, values.detach(), 0.0).mean()
    return means


def _require_values(what: str, rule: str, values: object, like: Tensor) -> None:
    if not isinstance(values, Tensor) or values.shape != like.shape:
        got = f"shape {list(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"{what}: {rule} must return a tensor of shape {list(like.shape)}, got {got}")
