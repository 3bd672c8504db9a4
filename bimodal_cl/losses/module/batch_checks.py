"""Check the inputs of a step before any state changes; every rank raises the error that one rank has found."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bimodal_cl.distributed import gather_rows, world_size

# Flaws of the tensors themselves; the ranks exchange the index.
_FLAWS = (
    "",
    "features must be matrices [batch, dim] of one width, of floating point",
    "ids must be flat [batch], of whole numbers",
)


class NonFiniteFeatures(ValueError):
    """Features that are not finite, on any rank: what a diverged training gives; every rank raises it."""


def require_sound_batch(
    image_features: Tensor,
    text_features: Tensor,
    image_ids: Tensor,
    text_ids: Tensor,
    num_images: int | None,
    num_texts: int | None,
) -> None:
    """Check this rank's batch and, by one small all-gather, those of all other ranks (one synchronization).

    Args:
        image_features, text_features, image_ids, text_ids: of this rank, of any shape and type.
        num_images, num_texts: rows of the tables; None where there is none.

    Raises:
        NonFiniteFeatures: features that are not finite; with rank and numbers, on every rank.
        ValueError: a tensor of a wrong shape or type, not as many of each, an empty batch, local batch sizes that
            differ, ids outside the table; likewise.
    """
    counts = [tensor.shape[0] if tensor.ndim else 0 for tensor in (image_features, text_features, image_ids, text_ids)]
    flaw = _find_flaw(image_features, text_features, image_ids, text_ids)
    if flaw == 0 and 0 < min(counts) == max(counts):
        ids = (*image_ids.aminmax(), *text_ids.aminmax())
        facts = torch.stack(
            [find_bad_rows(image_features).sum(), find_bad_rows(text_features).sum(), *(n.long() for n in ids)]
        )
    else:
        facts = torch.zeros(6, dtype=torch.int64, device=image_features.device)
    mine = torch.cat([torch.tensor([*counts, flaw], device=facts.device), facts])
    everyone = gather_rows(mine[None]).tolist()
    for number, (images, texts, of_images, of_texts, flaw, *_) in enumerate(everyone):
        where = f" on rank {number}" if world_size() > 1 else ""
        if flaw:
            raise ValueError(f"{_FLAWS[flaw]}{where}")
        if not images == texts == of_images == of_texts:
            raise ValueError(
                f"a batch has as many images as texts, image ids and text ids, got {images}, {texts}, {of_images} and "
                f"{of_texts}{where}"
            )
        if not images:
            raise ValueError(f"the batch is empty{where}")
    sizes = [row[0] for row in everyone]
    if len(set(sizes)) > 1:
        raise ValueError(f"every rank needs the same local batch size, got {sizes} (by rank)")
    for number, (size, _, _, _, _, bad_images, bad_texts, *_) in enumerate(everyone):
        if bad_images or bad_texts:
            raise NonFiniteFeatures(
                f"features are not finite on rank {number}: {bad_images} of {size} images, {bad_texts} of {size} texts"
            )
    bounds = [[row[column] for row in everyone] for column in range(7, 11)]
    _require_known_ids("image", bounds[0] + bounds[1], num_images)
    _require_known_ids("text", bounds[2] + bounds[3], num_texts)


def _find_flaw(image_features: Tensor, text_features: Tensor, image_ids: Tensor, text_ids: Tensor) -> int:
    features, ids = (image_features, text_features), (image_ids, text_ids)
    if any(each.ndim != 2 or not each.is_floating_point() for each in features):
        return 1
    if image_features.shape[1] != text_features.shape[1]:
        return 1
    whole = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    return 2 if any(each.ndim != 1 or each.dtype not in whole for each in ids) else 0


def find_bad_rows(features: Tensor) -> Tensor:
    """Mark the rows that hold a value that is not finite, bool ``[batch]``; one pass finds them by their sums."""
    precision = torch.promote_types(features.dtype, torch.float32)
    return ~features.detach().sum(dim=1, dtype=precision).isfinite()


def _require_known_ids(modality: str, ids: Sequence[int], num_anchors: int | None) -> None:
    for anchor_id in ids:
        if anchor_id < 0 or (num_anchors is not None and anchor_id >= num_anchors):
            size = "" if num_anchors is None else f" of {num_anchors} rows"
            raise ValueError(f"{modality} id {anchor_id} is outside the table{size}")
