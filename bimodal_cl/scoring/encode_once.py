"""Encode each distinct input once, in batches of one shape, so that features depend on model and input alone.

The last bits of a tower's output depend on the batch shape, because libraries choose kernels and blocking by shape. So
the towers always run on batches of ``IMAGES_AT_ONCE`` images or ``TEXTS_AT_ONCE`` texts (four times as many on a GPU,
which small batches would underuse), whatever the caller's batch size; the last batch is padded with repeats. Hence:

- Equal images (pixel by pixel) and texts of equal tokens are encoded once, so they have equal features. This holds by
  construction.
- The features of an input depend neither on the caller's batch size, nor on the number of decoding processes, nor on
  the order of the data. This requires that a row's result does not depend on its position in a batch of one shape, nor
  on the other rows. No library guarantees it; it was measured to hold to the last bit with torch's CPU kernels, in
  float32 for vision transformers, ResNets, other convolutional towers and text transformers, and in bfloat16 for
  transformers.
- The same was measured for 1 to 4 threads at this batch size (at 8 images, a ResNet-50 did depend on the threads).
- Convolution kernels also depend on the memory layout of pixels and weights. Both are channels last here, as in
  training, so a checkpoint keeps the features that it had when it was written.

Another processor, library version or precision may change the last bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

IMAGES_AT_ONCE = 32
TEXTS_AT_ONCE = 64
_TIMES_ON_A_GPU = 4


class Encoder(Protocol):
    """The part of ``bimodal_cl.models.DualEncoder`` that evaluation uses; features are unit-norm ``[batch, dim]``.

    An encoder with a method ``tokenize`` gets tokens, any other encoder the texts themselves.
    """

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Encode pixels ``[batch, 3, height, width]`` from :meth:`preprocess` or a stream."""

    def encode_text(self, texts: Any) -> Tensor:
        """Encode texts, or tokens ``[batch, tokens]``."""

    def preprocess(self, image: Image.Image) -> Tensor:
        """Convert an image to pixels ``[3, height, width]``."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over parameters, whose device is the model's."""

    def modules(self) -> Iterator[nn.Module]:
        """Iterate over all modules, as ``torch.nn.Module`` does."""


@contextmanager
def evaluation_mode(model: Encoder, autocast: torch.dtype | None = None) -> Iterator[torch.device]:
    """Disable gradients and put every module into evaluation mode, then restore its mode; yields the model's device.

    The weights of convolutions become channels last and stay so; no value changes.

    Args:
        model: a dual encoder.
        autocast: the dtype of autocast (``torch.bfloat16``, ``torch.float16``); None: no autocast.
    """
    was_training = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    try:
        for module, _ in was_training:
            module.training = False
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.to(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            yield device
    finally:
        for module, mode in was_training:
            module.training = mode


class DistinctInputs:
    """Encode the inputs of one tower, each distinct one once; see the module's docstring.

    Args:
        encode: maps a list of ``batch_size`` inputs to features ``[batch_size, dim]``.
        batch_size: the number of inputs in every call of ``encode``.
        keep_on: the device on which the features are kept.
    """

    def __init__(self, encode: Callable[[list[Any]], Tensor], batch_size: int, keep_on: torch.device) -> None:
        self._encode, self._batch_size, self._keep_on = encode, batch_size, keep_on
        self._row_of_key: dict[Hashable, int] = {}
        self._rows: list[int] = []
        self._waiting: list[Any] = []
        self._features: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, key: Hashable, item: Any) -> None:
        """Add an input; equal inputs have equal keys."""
        if key not in self._row_of_key:
            self._row_of_key[key] = len(self._row_of_key)
            self._waiting.append(item)
            if len(self._waiting) == self._batch_size:
                self._flush()
        self._rows.append(self._row_of_key[key])

    def features(self) -> Tensor:
        """Return float32 ``[inputs, dim]``, one row per call of :meth:`add`; there must have been at least one."""
        if self._waiting:
            self._flush()
        return torch.cat(self._features)[torch.tensor(self._rows, device=self._keep_on)]

    def _flush(self) -> None:
        used = len(self._waiting)
        filled = self._waiting + [self._waiting[-1]] * (self._batch_size - used)
        self._features.append(self._encode(filled).float()[:used].to(self._keep_on))
        self._waiting = []


def distinct_images(model: Encoder, device: torch.device, keep_on: torch.device | None = None) -> DistinctInputs:
    """Return an encoder of pixels ``[3, H, W]`` with :func:`pixel_key` as their key."""

    def encode(pixels: list[Tensor]) -> Tensor:
        batch = torch.stack(pixels).contiguous(memory_format=torch.channels_last)
        return model.encode_image(batch.to(device, non_blocking=True))

    return DistinctInputs(encode, _at_once(IMAGES_AT_ONCE, device), keep_on or device)


def distinct_texts(model: Encoder, device: torch.device, keep_on: torch.device | None = None) -> DistinctInputs:
    """Return an encoder of the items of :func:`text_items`."""

    def encode(items: list[Any]) -> Tensor:
        return model.encode_text(torch.stack(items) if isinstance(items[0], Tensor) else items)

    return DistinctInputs(encode, _at_once(TEXTS_AT_ONCE, device), keep_on or device)


def pixel_key(pixels: Tensor) -> bytes:
    """Return a hash of the pixels."""
    return hashlib.sha256(pixels.contiguous().cpu().numpy().data).digest()


def text_items(model: Encoder, texts: Sequence[str]) -> list[tuple[Hashable, Any]]:
    """Return ``(key, input)`` of the text tower for each text; texts with equal tokens have equal keys."""
    tokenize = getattr(model, "tokenize", None)
    if tokenize is None or not texts:
        return [(text, text) for text in texts]
    return [(hashlib.sha256(tokens.numpy().data).digest(), tokens) for tokens in tokenize(list(texts)).cpu()]


def _at_once(inputs: int, device: torch.device) -> int:
    return inputs if device.type == "cpu" else _TIMES_ON_A_GPU * inputs
