"""Tiles: how they are chosen, that they change nothing, and that nothing of the size of B x B is ever held."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bimodal_cl.losses import LOSSES, build_loss
from bimodal_cl.losses.margin import contrastive_margins
from bimodal_cl.losses.margin import tiles as margin_tiles
from bimodal_cl.losses.margin.tiles import Tiling, choose_tiling
from tests.test_losses.margin.brute_force import compute_by_brute_force, weigh

TOLERANCE = {"rtol": 1e-10, "atol": 1e-11}


def draw(batch_size: int, dim: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Features of images and texts, temperatures of images and texts."""
    generator = torch.Generator().manual_seed(seed)
    features = normalize(torch.randn(2, batch_size, dim, generator=generator, dtype=dtype), dim=-1)
    taus = 0.03 + 0.3 * torch.rand(2, batch_size, 1, generator=generator, dtype=dtype)
    return [*features, *taus]


def margins_and_gradients(inputs: list[Tensor], ids: tuple[Tensor, Tensor], **options: object) -> list[Tensor]:
    """Everything that one step returns."""
    leaves = [value.detach().requires_grad_() for value in inputs]
    x, y, tau_x, tau_y = leaves
    image, text = contrastive_margins(x, y, *ids, tau_x, tau_y, **options)
    gradients = torch.autograd.grad(weigh((image.margin, text.margin)), leaves)
    return [*image, *text, *gradients]


def brute_force(inputs: list[Tensor], ids: tuple[Tensor, Tensor]) -> list[Tensor]:
    leaves = [value.detach().requires_grad_() for value in inputs]
    x, y, tau_x, tau_y = leaves
    image, text = compute_by_brute_force(x, y, *ids, tau_x, tau_y)
    gradients = torch.autograd.grad(weigh((image[0], text[0])), leaves)
    return [*image, *text, *gradients]


PATTERNS = {
    "none": lambda i: (i, i),
    "captions side by side": lambda i: (i // 5, i),
    "captions far apart": lambda i: (i % 4, i),
    "shared texts": lambda i: (i, i % 3),
    "both": lambda i: (i // 2, (i + 1) // 3),
    "one image": lambda i: (i * 0, i),
    "half are one image": lambda i: (torch.where(i % 2 == 0, 0, i), i),
    "first tiles masked": lambda i: (i.clamp(min=len(i) - 4), i),
    "large ids": lambda i: (i * 10**12, i // 2 * 10**15 + 7),
}


@pytest.mark.parametrize("tile_size", ["auto", None, 3])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_repeats_are_no_negatives(pattern: str, tile_size: int | str | None) -> None:
    ids = PATTERNS[pattern](torch.arange(14))
    inputs = draw(14)
    expected = brute_force(inputs, ids)
    for actual, right in zip(margins_and_gradients(inputs, ids, tile_size=tile_size), expected, strict=True):
        torch.testing.assert_close(actual, right, **TOLERANCE)


@pytest.mark.parametrize("kept", [True, False])
def test_automatic_tiles_equal_brute_force(monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    """Small limits make ``"auto"`` cut 37 pairs into ragged tiles of 8, kept and computed again."""
    monkeypatch.setattr(margin_tiles, "CPU_TILE", 8)
    monkeypatch.setattr(margin_tiles, "KEPT_BYTES", 37 * 37 * 8 if kept else 37 * 37 * 8 - 1)
    inputs, ids = draw(37, seed=1), (torch.arange(37), torch.arange(37) // 2)
    assert choose_tiling("auto", 37, 37, inputs[0]) == Tiling(8, kept)
    expected = brute_force(inputs, ids)
    for actual, right in zip(margins_and_gradients(inputs, ids), expected, strict=True):
        torch.testing.assert_close(actual, right, **TOLERANCE)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_smaller_than_a_tile(batch_size: int) -> None:
    inputs, ids = draw(batch_size, seed=2), (torch.arange(batch_size), torch.arange(batch_size))
    expected = brute_force(inputs, ids)
    for tile_size in ("auto", None, 7):
        for actual, right in zip(margins_and_gradients(inputs, ids, tile_size=tile_size), expected, strict=True):
            torch.testing.assert_close(actual, right, **TOLERANCE)


@pytest.mark.parametrize("tile_size", ["auto", None, 4])
def test_memory_layout_does_not_matter(tile_size: int | str | None) -> None:
    """Features as columns of a wider matrix, as a transpose and with a stride of two; temperatures expanded."""
    inputs, ids = draw(11, seed=3), (torch.arange(11) // 2, torch.arange(11))
    inputs[2:] = [value[:1].clone().expand(11, 1) for value in inputs[2:]]
    expected = margins_and_gradients([value.contiguous() for value in inputs], ids, tile_size=tile_size)
    x, y = inputs[:2]
    for features in ((torch.cat([x, y], 1)[:, :5], y.T.contiguous().T), (x.repeat_interleave(2, dim=0)[::2], y)):
        actual = margins_and_gradients([*features, *inputs[2:]], ids, tile_size=tile_size)
        for value, right in zip(actual, expected, strict=True):
            torch.testing.assert_close(value, right, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("tile_size", ["auto", None, 4])
def test_backward_twice(tile_size: int | str | None) -> None:
    """What the forward pass keeps is read, not used up."""
    x, y, tau_x, tau_y = (value.requires_grad_() for value in draw(9, seed=4))
    ids = torch.arange(9) // 2
    image, text = contrastive_margins(x, y, ids, torch.arange(9), tau_x, tau_y, tile_size=tile_size)
    total = weigh((image.margin, text.margin))
    first = torch.autograd.grad(total, (x, y, tau_x, tau_y), retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(total, (x, y, tau_x, tau_y))))


def test_autocast_does_not_reach_inside() -> None:
    inputs, ids = draw(9, seed=5, dtype=torch.float32), (torch.arange(9), torch.arange(9))
    expected = margins_and_gradients(inputs, ids)
    with torch.autocast("cpu", torch.bfloat16):
        actual = margins_and_gradients(inputs, ids)
    assert all(map(torch.equal, actual, expected))


GIB = 2.0**30


@pytest.mark.parametrize(
    ("tile_size", "pairs", "candidates", "free", "expected"),
    [
        (None, 300, 600, 0, Tiling(600, kept=True)),  # one tile of everything, whatever is free
        (70, 300, 600, 0, Tiling(70, kept=False)),
        ("auto", 300, 300, GIB, Tiling(300, kept=True)),
        ("auto", 4096, 4096, 64 * GIB, Tiling(1024, kept=True)),  # 64 MiB of similarities
        ("auto", 4097, 4097, 64 * GIB, Tiling(1024, kept=False)),
        ("auto", 512, 32768, 64 * GIB, Tiling(1024, kept=True)),  # 64 ranks
        ("auto", 32768, 32768, 64 * GIB, Tiling(1024, kept=False)),
        ("auto", 32768, 32768, 2**27, Tiling(512, kept=False)),  # 8 MiB for three tiles
        ("auto", 2048, 2048, 2**27, Tiling(512, kept=False)),
        ("auto", 32768, 32768, 0, Tiling(64, kept=False)),
        ("auto", 32768, 32768, math.inf, Tiling(1024, kept=False)),  # the system does not say
    ],
)
def test_choice(monkeypatch, tile_size, pairs, candidates, free, expected) -> None:
    monkeypatch.setattr(margin_tiles, "free_memory", lambda device: free)
    assert choose_tiling(tile_size, pairs, candidates, torch.zeros(1)) == expected


def test_free_memory_is_known() -> None:
    """Linux says it; more than nothing, less than 100 TB."""
    free = margin_tiles.free_memory(torch.device("cpu"))
    assert 2**20 < free < 1e14 or free == math.inf


class LargestTensor(TorchDispatchMode):
    """Watches every operation and notes the elements of the largest tensor that one returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.elements = max([self.elements, *(tensor.untyped_storage().nbytes() // 4 for tensor in tensors)])
        return result


@pytest.mark.filterwarnings("ignore:.*rho")
@pytest.mark.parametrize("name", LOSSES)
def test_no_matrix_of_all_pairs(name: str) -> None:
    """With tiles of 16, a step over 240 pairs of width 8 holds no tensor of more than 240 x 16 numbers."""
    loss = build_loss(name, num_images=240, num_texts=240, tile_size=16)
    x, y = (value.requires_grad_() for value in draw(240, dim=8, dtype=torch.float32)[:2])
    with LargestTensor() as largest:
        loss(x, y, torch.arange(240) // 2, torch.arange(240)).loss.backward()
    assert 240 * 8 <= largest.elements <= 240 * 16
    dense = build_loss(name, num_images=240, num_texts=240, tile_size=None)
    with LargestTensor() as largest:
        dense(x, y, torch.arange(240) // 2, torch.arange(240)).loss.backward()
    assert largest.elements >= 240 * 240
