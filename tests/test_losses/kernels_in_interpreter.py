"""Compare the Triton kernels with PyTorch's operations, and print the difference, one JSON object a line.

To be run as a program with ``TRITON_INTERPRET=1``, which Triton reads when it is imported.
"""

from __future__ import annotations

import json
import warnings
from typing import Any

import torch
from torch.nn.functional import normalize

from bimodal_cl.losses.margin import contrastive_margins
from bimodal_cl.losses.margin import triton_kernel as margin_triton
from bimodal_cl.losses.margin.kernels import triton_agrees

# (pairs, dim, tile_size, products, pairs that share an image, smallest temperature)
CASES: list[tuple[int, int, Any, Any, int, float]] = [
    (150, 40, "auto", "float32", 1, 0.02),
    (150, 40, 100, "float32", 3, 0.02),
    (200, 72, 135, "float32", 2, 0.02),
    (9, 33, "auto", "float32", 9, 0.02),  # no anchor has a negative
    (1, 8, "auto", "float32", 1, 0.02),
    (5, 8, 2, "float32", 2, 0.02),
    (140, 70, 100, "bf16", 2, 0.05),
]


def compute(kernel: Any, case: tuple[int, int, Any, Any, int, float], extreme: bool) -> list[torch.Tensor]:
    """Margins, slopes and gradients of one case; ``extreme`` makes every cosine +-1 and every temperature 0.005."""
    num_pairs, dim, tile_size, products, repeats, lowest = case
    generator = torch.Generator().manual_seed(0)
    x, y = normalize(torch.randn(2, num_pairs, dim, generator=generator), dim=-1)
    spread = torch.rand(num_pairs, 1, generator=generator)
    if extreme:
        x, y = (sign[:, :1].sign().expand(-1, dim) / dim**0.5 for sign in (x, y))
        lowest, spread = 0.005, 0 * spread
    leaves = [value.clone().requires_grad_() for value in (x, y, lowest + spread, lowest + spread.flip(0))]
    i = torch.arange(num_pairs)
    image, text = contrastive_margins(
        leaves[0],
        leaves[1],
        i // repeats,
        (i + 1) // repeats if repeats < num_pairs else i,
        leaves[2],
        leaves[3],
        tile_size=tile_size,
        products=products,
        kernel=kernel,
    )
    weights = torch.linspace(-1, 2, num_pairs)[:, None]
    gradients = torch.autograd.grad((image.margin * weights).sum() + (text.margin * weights**2).sum(), leaves)
    return [*image, *text, *gradients]


def compare(case: tuple[int, int, Any, Any, int, float], extreme: bool) -> float:
    """Largest difference of a tensor over the largest number in it."""
    differences = [
        (ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-6)
        for ours, theirs in zip(compute("triton", case, extreme), compute("torch", case, extreme), strict=True)
    ]
    return torch.stack(differences).max().item()


def main() -> None:
    """Compare every case, with the products made by PyTorch and, where they are float32, by the kernels."""
    for kernels_multiply in (False, True):
        margin_triton.MULTIPLIED_IN_BLOCKS = (torch.float32,) if kernels_multiply else ()
        for case in CASES:
            if kernels_multiply and case[3] == "bf16":
                continue  # the interpreter multiplies the bits of bf16 numbers as if they were integers
            for extreme in (False, True)[: 1 + (case[2] == 100)]:
                result = {"case": case, "kernels_multiply": kernels_multiply, "extreme": extreme}
                print(json.dumps({**result, "difference": compare(case, extreme)}), flush=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        print(json.dumps({"agrees": triton_agrees(torch.device("cpu"), torch.float32)}))


if __name__ == "__main__":
    main()
