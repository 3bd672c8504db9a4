"""Let a tower compute its blocks again in the backward pass instead of keeping their activations."""

from __future__ import annotations

from typing import Any

from torch import nn

from bimodal_cl.errors import UserError, one_line
from bimodal_cl.models.towers.huggingface_text import HuggingFaceTextTower
from bimodal_cl.models.towers.siglip import SiglipImageTower, SiglipTextTower


def checkpoint_gradients(tower: nn.Module, modality: str) -> None:
    """Turn gradient checkpointing on, by the library that the tower comes from.

    Args:
        tower: as :mod:`bimodal_cl.models.towers.build` makes it.
        modality: ``"image"`` or ``"text"``, for the message.

    Raises:
        UserError: the tower's library does not support it for this architecture.
    """
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel

    if isinstance(tower, ModifiedResNet):  # its method exists, and does nothing
        raise _refusal(modality, "open_clip's ResNets cannot do it; timm's can, such as resnet50")
    try:
        if isinstance(tower, TimmModel):
            tower.trunk.set_grad_checkpointing(True)  # the adapter's own method swallows the error
        elif isinstance(tower, HuggingFaceTextTower | SiglipImageTower | SiglipTextTower):
            _checkpoint_transformer(tower.transformer)
        else:
            tower.set_grad_checkpointing(True)  # type: ignore[operator]
    except Exception as error:  # what they raise differs from architecture to architecture
        raise _refusal(modality, one_line(error)) from error


def _checkpoint_transformer(transformer: Any) -> None:
    settings = {"use_reentrant": False}
    if hasattr(transformer, "activation_checkpointing_enable"):  # the name in newer versions of transformers
        transformer.activation_checkpointing_enable(activation_checkpointing_kwargs=settings)
    else:
        transformer.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)


def _refusal(modality: str, reason: str) -> UserError:
    return UserError(
        f"train.grad_checkpointing=true: the {modality} tower does not support it ({reason}); leave it out, or save "
        "memory by train.accumulate_features"
    )
