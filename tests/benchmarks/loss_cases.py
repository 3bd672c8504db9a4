"""Inputs and cases of the losses benchmark, and one step of each of our losses.

All of them get the same float32 features and the same temperature, and the tables are as long as the batch, so that
what is compared is the loss; ``state`` measures long tables. The step of the temperatures is tiny, so that every round
does the same arithmetic.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bimodal_cl.losses import LOSSES, build_loss
from bimodal_cl.losses.module.registry import LOSS_SETTINGS

TAU = 0.05
ETA = 1e-5
RHO = 1.0
GAMMA = 0.8
ALIGNMENT = 0.3  # cosine of the positives, as in a trained CLIP

# One step's loss, from image and text features.
Step = Callable[[Tensor, Tensor], Tensor]

_HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "clip": {"tau_init": TAU},
    "cyclip": {"tau_init": TAU},
    "macl": {"tau_base": TAU},
    "sogclr": {"tau": TAU, "gamma": GAMMA},
    "isogclr": {"tau_init": TAU, "gamma": GAMMA, "rho": RHO, "eta": ETA},
    "rgcl_g": {"tau_init": TAU, "gamma": GAMMA, "gamma_schedule": "constant", "rho": RHO},
}


@dataclass(frozen=True)
class Case:
    """One row of a table.

    Attributes:
        loss: the name of our loss, which a peer's row stands against.
        name: what the row is called; unique for a loss.
        hyperparameters: of ours; None for a peer's.
        peer_file: the file of a peer's code; None for ours.
    """

    loss: str
    name: str
    hyperparameters: dict[str, Any] | None = None
    peer_file: Path | None = None

    @property
    def is_ours(self) -> bool:
        """Whether the row is this project's."""
        return self.peer_file is None


@dataclass(frozen=True)
class Inputs:
    """A batch of pairs without repeats.

    Attributes:
        image_features: unit-norm float32 ``[batch, dim]``, requires a gradient; so does ``text_features``.
        ids: a permutation of 0 .. batch - 1, for images and texts alike.
    """

    image_features: Tensor
    text_features: Tensor
    ids: Tensor

    def clear_gradients(self) -> None:
        """Drop the gradients."""
        self.image_features.grad = self.text_features.grad = None

    def gradient(self) -> Tensor:
        """Return both gradients ``[2 * batch, dim]`` on the CPU."""
        return torch.cat([self.image_features.grad, self.text_features.grad]).cpu()


def draw_inputs(batch_size: int, dim: int, device: str) -> Inputs:
    """Draw features whose positives have a cosine of about ``ALIGNMENT`` and whose negatives about 0."""
    generator = torch.Generator().manual_seed(0)
    image, noise = (
        torch.nn.functional.normalize(torch.randn(batch_size, dim, generator=generator), dim=1) for _ in range(2)
    )
    text = torch.nn.functional.normalize(ALIGNMENT * image + (1 - ALIGNMENT**2) ** 0.5 * noise, dim=1)
    ids = torch.randperm(batch_size, generator=generator)
    return Inputs(image.to(device).requires_grad_(), text.to(device).requires_grad_(), ids.to(device))


def list_our_cases(tile_size: int, device: str) -> list[Case]:
    """List each of our losses with its defaults, with tiles of a given size, dense, and with the other products.

    The first of a loss is what its peers are compared with. It has products of bf16 numbers on ``"cuda"``, where peers
    run under autocast, and of float32 numbers on ``"cpu"``.
    """
    cases = []
    for loss in LOSSES:
        known = LOSS_SETTINGS[loss].model_fields
        given = {key: value for key, value in _HYPERPARAMETERS.get(loss, {}).items() if key in known}
        if "products" in known:
            given["products"] = "bf16" if device == "cuda" else "float32"
        cases.append(Case(loss, "ours", given))
        cases.append(Case(loss, f"ours, tiles of {tile_size}", {**given, "tile_size": tile_size}))
        cases.append(Case(loss, "ours, dense", {**given, "tile_size": None}))
        if "products" in known:
            other = "float32" if device == "cuda" else "bf16"
            cases.append(Case(loss, f"ours, {other} products", {**given, "products": other}))
    return cases


def _build(loss: str, hyperparameters: dict[str, Any], num_pairs: int) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about hyperparameters that only suit a benchmark
        return build_loss(loss, num_images=num_pairs, num_texts=num_pairs, **hyperparameters)


def build_our_step(case: Case, inputs: Inputs) -> Step:
    """Build one of our losses and return its step."""
    loss = _build(case.loss, case.hyperparameters or {}, len(inputs.ids)).to(inputs.ids.device)

    def step(image_features: Tensor, text_features: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return loss(image_features, text_features, inputs.ids, inputs.ids).loss

    return step
