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

Several ranks may encode one data set together. Each takes a share, so what holds for the order of the data holds for
the number of ranks, too. Inputs that several ranks have in common are encoded by each, and the first one's features
count, so equal inputs have equal features by construction here as well.

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

from bimodal_cl.distributed import gather_objects, gather_uneven_rows, rank, world_size

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

    Several ranks encode together in one of two ways. Either each adds a share of the inputs, in rank order, and calls
    :meth:`gather_shares`. Or all add the same inputs with ``in_turn``, encode every ``world_size``-th batch each, and
    call :meth:`features`; then the batches are those of one process.

    Args:
        encode: maps a list of ``batch_size`` inputs to features ``[batch_size, dim]``.
        batch_size: the number of inputs in every call of ``encode``.
        keep_on: the device on which the features are kept.
        in_turn: whether the ranks take turns with the batches of the same inputs.
    """

    def __init__(
        self,
        encode: Callable[[list[Any]], Tensor],
        batch_size: int,
        keep_on: torch.device,
        in_turn: bool = False,
    ) -> None:
        self._encode, self._batch_size, self._keep_on = encode, batch_size, keep_on
        self._rank, self._world_size = (rank(), world_size()) if in_turn else (0, 1)
        self._row_of_key: dict[Hashable, int] = {}
        self._rows: list[int] = []
        self._waiting: list[Any] = []
        self._num_batches = 0
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
        own = self._encoded()
        if self._world_size > 1:
            own = self._put_in_order(gather_uneven_rows(own))
        assert own is not None
        if len(self._rows) == len(own):  # all are distinct and in order; a copy would double the memory
            return own
        return own[torch.tensor(self._rows, device=own.device)]

    def gather_shares(self) -> Tensor:
        """Return float32 ``[inputs of all ranks, dim]``, in rank order; at least one rank must have added an input.

        An input that several ranks have added has the features that the first of them computed.
        """
        if world_size() == 1:
            return self.features()
        parts = gather_objects((list(self._row_of_key), self._rows))
        table = torch.cat(gather_uneven_rows(self._encoded())).to(self._keep_on)
        first_row: dict[Hashable, int] = {}
        before, rows = 0, []
        for keys, rows_of_rank in parts:
            here = [first_row.setdefault(key, before + number) for number, key in enumerate(keys)]
            rows += [here[row] for row in rows_of_rank]
            before += len(keys)
        return table[torch.tensor(rows, device=self._keep_on)]

    def _flush(self) -> None:
        used = len(self._waiting)
        if self._num_batches % self._world_size == self._rank:
            filled = self._waiting + [self._waiting[-1]] * (self._batch_size - used)
            self._features.append(self._encode(filled).float()[:used].to(self._keep_on))
        self._num_batches += 1
        self._waiting = []

    def _encoded(self) -> Tensor | None:
        """Return the features of the distinct inputs that this rank has encoded; None if there are none."""
        if self._waiting:
            self._flush()
        if len(self._features) > 1:
            self._features = [torch.cat(self._features)]  # the parts are freed
        return self._features[0] if self._features else None

    def _put_in_order(self, parts: list[Tensor]) -> Tensor:
        """Return the rows of all batches, given each rank's; all batches are full but the last."""
        batches = [part.split(self._batch_size) for part in parts]
        turns = (divmod(number, len(parts)) for number in range(self._num_batches))
        return torch.cat([batches[of_rank][turn] for turn, of_rank in turns]).to(self._keep_on)


def distinct_images(model: Encoder, device: torch.device, keep_on: torch.device | None = None) -> DistinctInputs:
    """Return an encoder of pixels ``[3, H, W]`` with :func:`pixel_key` as their key."""

    def encode(pixels: list[Tensor]) -> Tensor:
        batch = torch.stack(pixels).contiguous(memory_format=torch.channels_last)
        return model.encode_image(batch.to(device, non_blocking=True))

    return DistinctInputs(encode, _at_once(IMAGES_AT_ONCE, device), keep_on or device)


def distinct_texts(
    model: Encoder, device: torch.device, keep_on: torch.device | None = None, in_turn: bool = False
) -> DistinctInputs:
    """Return an encoder of the items of :func:`text_items`; ``in_turn``: see :class:`DistinctInputs`."""

    def encode(items: list[Any]) -> Tensor:
        return model.encode_text(torch.stack(items) if isinstance(items[0], Tensor) else items)

    return DistinctInputs(encode, _at_once(TEXTS_AT_ONCE, device), keep_on or device, in_turn)


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
