"""Describe a step's global batch for the log: percentiles of the temperatures, and how uniform the features are.

Both need a collective and some arithmetic of their own, so they are computed for logged steps only.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from bimodal_cl.distributed import gather_rows, world_size
from bimodal_cl.losses.module.contrastive import BatchValues

PERCENTILES = (5, 50, 95)
MAX_ROWS = 1024  # features of a modality that uniformity is computed from: 1024**2 cosines are 4 MiB


def describe_batch(batch: BatchValues) -> dict[str, Tensor]:
    """Return the values of the global batch by name, equal on every rank; each rank must call this.

    ``tau_image_p05``, ``tau_image_p50``, ``tau_image_p95``: percentiles over the anchors of the global batch, and the
    same of texts. ``uniformity_image``, ``uniformity_text``: see :func:`compute_uniformity`. It is of the whole global
    batch up to :data:`MAX_ROWS` pairs; of a larger one, each rank gives its first rows, ``MAX_ROWS`` in all.

    Args:
        batch: this rank's part of the batch.

    Returns:
        0-d tensors.
    """
    tau = gather_rows(torch.cat([batch.tau_image, batch.tau_text], dim=1)).float()
    quantiles = torch.tensor(PERCENTILES, device=tau.device) / 100
    values: dict[str, Tensor] = {}
    for name, column in (("tau_image", tau[:, 0]), ("tau_text", tau[:, 1])):
        found = torch.quantile(column, quantiles)
        values |= {f"{name}_p{percent:02d}": value for percent, value in zip(PERCENTILES, found, strict=True)}
    rows = max(MAX_ROWS // world_size(), 1)
    for name, features in (("image", batch.image_features), ("text", batch.text_features)):
        values[f"uniformity_{name}"] = compute_uniformity(gather_rows(features[:rows].float()))
    return values


def compute_uniformity(features: Float[Tensor, "rows dim"], t: float = 2.0) -> Float[Tensor, ""]:
    """Return the uniformity loss of features on the unit sphere: 0 where all are one point, lower when they spread.

    ``log mean_{x != y} exp(-t * |x - y|**2)`` over all pairs of rows (Wang & Isola 2020, "Understanding Contrastive
    Representation Learning through Alignment and Uniformity on the Hypersphere", arXiv 2005.10242, section 4.1.2, with
    their ``t = 2``). Features spread evenly over a sphere of many dimensions come near ``-2 t = -4``. Rows that repeat
    an image or a text count like any others.

    Args:
        features: unit-norm, at least 2 rows. All ``rows**2`` cosines are held at a time.
        t: weight of the squared distance, > 0.
    """
    closeness = torch.exp(-2 * t * (1 - features @ features.T).clamp(min=0))  # |x - y|**2 = 2 - 2 cos
    pairs = len(features) * (len(features) - 1)
    return (closeness.fill_diagonal_(0).sum() / pairs).log()
