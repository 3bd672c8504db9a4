"""Build an optimizer: PyTorch's AdamW, or timm's LAMB, Lion or Muon.

PyTorch has no LAMB and no Lion, and its Muon takes two-dimensional parameters alone, so that a model would need a
second optimizer next to it. timm's Muon flattens the kernels of convolutions and updates everything else by AdamW.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import nn

from bimodal_cl.optim.groups import Part, build_groups, separate_matrices

OPTIMIZERS = ("adamw", "lamb", "lion", "muon")


def build_optimizer(
    model: nn.Module,
    temperatures: Iterable[nn.Parameter] = (),
    *,
    learning_rate: float,
    weight_decay: float,
    name: str = "adamw",
    beta1: float = 0.9,
    beta2: float = 0.98,
    eps: float = 1e-6,
    momentum: float = 0.95,
    temperature_learning_rate: float | None = None,
    parts: Sequence[Part] = (),
    hidden: Collection[nn.Parameter] = (),
) -> torch.optim.Optimizer:
    """Build an optimizer with weight decay on matrices only; each parameter group has a ``"name"``.

    Parameters of fewer than two dimensions (norms, biases, scales) and the learned temperatures are not decayed, as
    in open_clip. The groups are those of :func:`~bimodal_cl.optim.groups.build_groups`.

    - ``adamw``: Loshchilov and Hutter, ICLR 2019.
    - ``lamb``: You et al., ICLR 2020. A decayed matrix's update is scaled by the matrix's norm over the update's.
      Clipping is left to the caller.
    - ``lion``: Chen et al., NeurIPS 2023. The update is a sign, so learning rates are smaller by 3 to 10 times, and
      weight decays larger.
    - ``muon``: Jordan et al. 2024. Hidden matrices move along their orthogonalized momentum, scaled so that AdamW's
      learning rates fit (Liu et al. 2025, arXiv 2502.16982); all else moves by AdamW with Nesterov's momentum.

    Args:
        model: its trainable parameters are optimized.
        temperatures: the loss's learned parameters.
        learning_rate: peak learning rate; the schedule sets the one in force.
        weight_decay: decoupled weight decay; LAMB adds it to the update before scaling.
        name: one of ``OPTIMIZERS``.
        beta1: decay of the first moment.
        beta2: decay of the second moment; Lion: of the mean gradient, which ``beta1`` weighs against the new one.
        eps: added to the denominator; not of Lion.
        momentum: Muon's, of hidden matrices.
        temperature_learning_rate: learning rate of ``temperatures``, which then are a parameter group of their own;
            None: they are ``not_decayed``, with the learning rate of the weights.
        parts: parts of the model with learning rates of their own.
        hidden: Muon: the parameters inside the towers' blocks.
    """
    groups = build_groups(
        model,
        temperatures,
        weight_decay=weight_decay,
        temperature_learning_rate=temperature_learning_rate,
        parts=parts,
    )
    betas = (beta1, beta2)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=eps, fused=True)

    from timm.optim import Lamb, Lion, Muon

    if name == "lamb":
        return Lamb(groups, lr=learning_rate, betas=betas, eps=eps, max_grad_norm=None)
    if name == "lion":
        return Lion(groups, lr=learning_rate, betas=betas)
    assert name == "muon", name
    return Muon(
        separate_matrices(groups, {id(parameter) for parameter in hidden}),
        lr=learning_rate,
        momentum=momentum,
        betas=betas,
        eps=eps,
        adjust_lr_fn="match_rms_adamw",
    )
