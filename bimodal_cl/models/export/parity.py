"""Compare the features of an exported model with those of the model itself."""

from __future__ import annotations

import torch
from torch import Tensor

from bimodal_cl.errors import UserError
from bimodal_cl.models.dual_encoder import DualEncoder

TOLERANCE = 1e-5  # largest difference of a coordinate of unit-norm features between two libraries in float32
# Short, long, longer than any context, with punctuation, digits, capitals, and empty.
CAPTIONS = (
    "a dog",
    "Two red cats and a blue horse, seen from above.",
    "a photo of 12 birds on a wire " * 12,
    "",
    "the child's kite!",
)


class NotExported(UserError):
    """A format cannot hold this model; the message says why in a few words."""


def sample_pixels(encoder: DualEncoder, num_images: int = len(CAPTIONS)) -> Tensor:
    """Return normal random values as normalised pixels, float32 ``[num_images, 3, image_size, image_size]``."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num_images, 3, encoder.image_size, encoder.image_size, generator=generator)


def require_equal(name: str, found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> float:
    """Return the largest difference of two tensors of unit-norm features.

    Args:
        name: what was compared, for the message.
        found: the exported model's features.
        expected: the model's own.
        tolerance: largest difference that is allowed.

    Raises:
        NotExported: the shapes differ, or the difference is larger or not a number.
    """
    if found.shape != expected.shape:
        raise NotExported(f"{name} features have shape {list(found.shape)} there, not {list(expected.shape)}")
    difference = (found - expected).abs().max().item()
    if not difference <= tolerance:
        raise NotExported(f"{name} features differ by {difference:.1e}, more than {tolerance:.0e}")
    return difference
