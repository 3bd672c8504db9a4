"""The towers hold the activations of one micro-batch at a time, whatever the number of micro-batches."""

from __future__ import annotations

import weakref
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from bimodal_cl.training.encoded_batch import EncodedBatch
from tests.test_training.accumulation.small_towers import SIDE, VOCABULARY, SmallTowers

MICRO_BATCH = 16


class Kept:
    """A tensor that a graph keeps for its backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class CountingTowers(SmallTowers):
    """Towers that count the bytes that their graphs keep: ``now``, and ``most`` at once."""

    now = most = 0

    def keep(self, tensor: Tensor) -> Kept:
        kept = Kept(tensor)
        weights = {parameter.untyped_storage().data_ptr() for parameter in self.parameters()}
        if tensor.untyped_storage().data_ptr() not in weights:
            self.add(tensor.nbytes)
            weakref.finalize(kept, self.add, -tensor.nbytes)
        return kept

    def add(self, num_bytes: int) -> None:
        self.now += num_bytes
        self.most = max(self.most, self.now)

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autograd.graph.saved_tensors_hooks(self.keep, lambda kept: kept.tensor):
            return super().forward(pixels, tokens)


def count_bytes(num_pairs: int, num_micro_batches: int) -> SimpleNamespace:
    """Count the bytes that the towers' graphs keep: the most at once, and those kept while the loss is computed."""
    torch.manual_seed(0)
    towers = CountingTowers()
    pixels = torch.randint(256, (num_pairs, 3, SIDE, SIDE), dtype=torch.uint8)
    tokens = torch.randint(VOCABULARY, (num_pairs, 7))
    encoded = EncodedBatch(Accelerator(cpu=True), towers, pixels, tokens, num_micro_batches)
    at_the_loss = towers.now
    (encoded.image_features @ encoded.text_features.T).logsumexp(dim=1).sum().backward()
    encoded.backward()
    assert towers.now == 0
    return SimpleNamespace(most=towers.most, at_the_loss=at_the_loss)


@pytest.mark.parametrize("num_micro_batches", [2, 4, 8, 32])
def test_activations_are_those_of_one_micro_batch(num_micro_batches: int) -> None:
    one = count_bytes(MICRO_BATCH, 1)
    cached = count_bytes(num_micro_batches * MICRO_BATCH, num_micro_batches)
    whole = count_bytes(num_micro_batches * MICRO_BATCH, 1)
    assert cached.most == one.most > 0
    assert cached.at_the_loss == 0
    assert whole.most == whole.at_the_loss == num_micro_batches * one.most
