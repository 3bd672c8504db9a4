"""A small dual encoder and images for it."""

from __future__ import annotations

import copy

import pytest
import torch

from bimodal_cl.models import DualEncoder, build_model
from tests.test_models.small_models import TEXT, VISION


@pytest.fixture(scope="session")
def built_encoder() -> DualEncoder:
    """A small dual encoder of open_clip's own towers, in evaluation mode; not to be changed."""
    torch.manual_seed(0)
    return build_model(embed_dim=16, vision=VISION, text=TEXT).eval()


@pytest.fixture
def encoder(built_encoder: DualEncoder) -> DualEncoder:
    """A copy of the small encoder that a test may change; what a test draws is always the same."""
    torch.manual_seed(1)
    return copy.deepcopy(built_encoder)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put huggingface_hub into offline mode."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def pixels() -> torch.Tensor:
    """uint8 images [3, 3, 32, 32]."""
    return torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
