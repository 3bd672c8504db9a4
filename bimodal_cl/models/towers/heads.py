"""Build the heads that project a tower's pooled features into the shared space.

============  ================================  ===================
head          image (timm)                      text (Hugging Face)
============  ================================  ===================
``linear``    ``W x + b``, after dropout        ``W x``
``mlp``       ``W2 gelu(W1 x + b1)``            ``W2 gelu(W1 x)``
``residual``  ``W x + b + W2 gelu(W1 x + b1)``  likewise
hidden width  ``2 dim``                         ``(in + dim) // 2``
============  ================================  ===================

``linear`` and ``mlp`` have the shapes and names of open_clip's adapters, so any open_clip loads them. ``residual`` is
ours: a linear map and a correction to it. Its last matrix starts at zero, so it begins as the linear head.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from bimodal_cl.errors import UserError, did_you_mean

RESIDUAL = "residual"
HEADS = ("linear", "mlp", RESIDUAL)


def check_kind(kind: str, key: str) -> None:
    """Refuse a head that is none of ``HEADS``.

    Raises:
        UserError: naming `key`, its value and the nearest valid choice.
    """
    if kind not in HEADS:
        raise UserError(f"{key} '{kind}' is no head that is trained on features{did_you_mean(kind, HEADS)}")


class ResidualHead(nn.Module):
    """A linear map plus a correction by one hidden layer, ``[..., width]`` to ``[..., dim]``.

    Args:
        width: of the input.
        dim: of the output.
        hidden: width of the hidden layer.
        drop: dropout of the hidden layer, in [0, 1).
    """

    def __init__(self, width: int, dim: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(width, dim)
        self.fc1 = nn.Linear(width, hidden)
        self.drop = nn.Dropout(drop)
        self.fc2 = nn.Linear(hidden, dim, bias=False)
        nn.init.zeros_(self.fc2.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Project features."""
        return self.linear(features) + self.fc2(self.drop(torch.nn.functional.gelu(self.fc1(features))))


def build_image_head(kind: str, width: int, dim: int, drop: float = 0.0, bias: bool = False) -> nn.Sequential:
    """Build the head of a timm tower.

    Args:
        kind: one of ``HEADS``.
        width: of the trunk's pooled features.
        dim: width of the shared space.
        drop: dropout; of the input of ``linear``, else of the hidden layer.
        bias: whether the last layer of ``linear`` and ``mlp`` has a bias.
    """
    from timm.layers import Mlp

    if kind == RESIDUAL:
        return nn.Sequential(OrderedDict([(RESIDUAL, ResidualHead(width, dim, 2 * dim, drop))]))
    if kind == "mlp":
        return nn.Sequential(OrderedDict(mlp=Mlp(width, 2 * dim, dim, drop=(drop, 0.0), bias=(True, bias))))
    return nn.Sequential(OrderedDict(drop=nn.Dropout(drop), proj=nn.Linear(width, dim, bias=bias)))


def build_text_head(kind: str, width: int, dim: int) -> nn.Module:
    """Build the head of a Hugging Face tower.

    Args:
        kind: one of ``HEADS``.
        width: of the transformer's pooled features.
        dim: width of the shared space.
    """
    hidden = (width + dim) // 2
    if kind == RESIDUAL:
        return ResidualHead(width, dim, hidden)
    if kind == "linear":
        return nn.Linear(width, dim, bias=False)
    return nn.Sequential(nn.Linear(width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, dim, bias=False))
