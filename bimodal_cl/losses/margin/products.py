"""Multiply matrices for the margin, in the features' own precision or in bf16.

In bf16, features and the weights of the gradient are rounded to 8 significant bits before they are multiplied; products
are summed in float32. ``s_ii``, temperatures, margins, state and the sums of gradients stay float32. A similarity is
then off by about 3e-4 (root mean square; dim 512; on a CPU, where PyTorch also rounds the products to bf16), a margin
by that over the temperature: 3e-2 at 0.01, where the gradient differs by 2 % from float64's; 5e-4 and 0.05 % at 0.05.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Products = Literal["float32", "bf16"]


def product_dtype(products: Products, features: Tensor) -> torch.dtype:
    """Return the type that features are multiplied in: bf16 if asked for and they are float32, otherwise their own."""
    return torch.bfloat16 if products == "bf16" and features.dtype == torch.float32 else features.dtype


def multiply_(out: Float[Tensor, "m n"], left: Float[Tensor, "m k"], right: Float[Tensor, "k n"]) -> Tensor:
    """Write ``left @ right`` into ``out``, whose type may be wider; sums are float32 for bf16 factors."""
    if left.dtype == out.dtype:
        return torch.mm(left, right, out=out)
    if _can_widen(out):
        return torch.mm(left, right, out_dtype=out.dtype, out=out)
    return out.copy_(left @ right)


def add_product_(total: Float[Tensor, "m n"], left: Float[Tensor, "m k"], right: Float[Tensor, "k n"]) -> Tensor:
    """Add ``left @ right`` to ``total``, whose type may be wider than that of ``right``, which is multiplied in."""
    if right.dtype == total.dtype:
        return total.addmm_(left, right)
    left = left.to(right.dtype)
    return total.add_(torch.mm(left, right, out_dtype=total.dtype) if _can_widen(total) else left @ right)


def _can_widen(out: Tensor) -> bool:
    """Whether bf16 products come out as float32: on CUDA from PyTorch 2.8 on; elsewhere they are rounded to bf16."""
    return out.is_cuda and "dtype" in torch.ops.aten.mm.overloads()
