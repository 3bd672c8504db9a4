"""Take the towers of a dual encoder without their heads: pixels and tokens to the pooled features that a head gets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bimodal_cl.errors import UserError
from bimodal_cl.models.dual_encoder import DualEncoder
from bimodal_cl.models.towers.heads import HEADS
from bimodal_cl.models.towers.huggingface_text import HuggingFaceTextTower


class LockedTowers:
    """The towers of a dual encoder without their heads, in evaluation mode.

    Args:
        encoder: the model; it is not changed.
        what: names it in messages.

    Attributes:
        image_width, text_width: numbers of a feature.
        text_norm: name in `encoder` of the layer norm, with weight and bias, whose outputs the text tower pools; "" if
            its last module is none, if the norm serves other layers too (ALBERT), or if another module comes after it
            (BERT's own pooler).

    Raises:
        UserError: a tower has no head that could be trained apart from it.
    """

    def __init__(self, encoder: DualEncoder, what: str) -> None:
        self.encoder = encoder.eval()
        _require_heads(encoder, what)
        with torch.inference_mode():
            size = encoder.image_size
            pixels = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=encoder.device)
            self.image_width = self.encode_image(pixels).shape[1]
            with _last_norm(encoder.text) as norm:
                text = self.encode_text(encoder.tokenize(["a"]))
            self.text_norm = f"text.{norm[0]}" if norm and self._pools(norm[0], text) else ""
        self.text_width = text.shape[1]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Return the pooled features of uint8 pixels ``[batch, 3, image_size, image_size]``, float32."""
        with _headless(self.encoder.visual, "head"):
            return self.encoder.visual(self.encoder.normalized(pixels)).float()

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return the pooled features of tokens ``[batch, context_length]``, float32.

        Columns that are padding in every row are not computed, so texts of about equal length should come together.
        """
        tokens = tokens[:, : int(self.text_lengths(tokens).max())].to(self.encoder.device)
        with _headless(self.encoder.text, "proj"):
            return self.encoder.text(tokens).float()

    def text_lengths(self, tokens: Tensor) -> Tensor:
        """Return the number of columns up to the last token that is not padding, int64 ``[batch]``."""
        assert isinstance(self.encoder.text, HuggingFaceTextTower)
        columns = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        return (self.encoder.text.valid_tokens(tokens) * columns).amax(dim=1)

    def _pools(self, name: str, before: Tensor) -> bool:
        """Return whether twice a layer norm's outputs plus one give just that of the pooled feature of "a"."""
        norm = self.encoder.text.get_submodule(name)
        hook = norm.register_forward_hook(lambda module, inputs, output: 2 * output + 1)
        try:
            after = self.encode_text(self.encoder.tokenize(["a"]))
        finally:
            hook.remove()
        return torch.allclose(after, 2 * before + 1, rtol=1e-4, atol=1e-4)


def _require_heads(encoder: DualEncoder, what: str) -> None:
    from open_clip.timm_model import TimmModel

    vision, text = encoder.architecture.vision, encoder.architecture.text
    if not isinstance(encoder.visual, TimmModel) or vision.get("timm_proj") not in HEADS:
        raise UserError(
            f"{what}: only a timm image tower with a head of its own can be encoded: give model.vision.timm_model_name "
            f"and timm_proj ({', '.join(HEADS)})"
        )
    if str(vision.get("timm_pool")).endswith("attn"):
        raise UserError(f"{what}: timm_pool '{vision['timm_pool']}' belongs to the head: use avg, token or map")
    if not isinstance(encoder.text, HuggingFaceTextTower) or text.get("hf_proj_type") not in HEADS:
        raise UserError(
            f"{what}: only a Hugging Face text tower with a head of its own can be encoded: give "
            f"model.text.hf_model_name and hf_proj_type ({', '.join(HEADS)})"
        )


@contextmanager
def _headless(tower: nn.Module, name: str) -> Iterator[None]:
    head = getattr(tower, name)
    setattr(tower, name, nn.Identity())
    try:
        yield
    finally:
        setattr(tower, name, head)


@contextmanager
def _last_norm(tower: nn.Module) -> Iterator[list[str]]:
    """Yield a list that gets the name of the layer norm whose output is the transformer's last hidden state."""
    transformer: Any = tower.get_submodule("transformer")
    found: list[str] = []
    outputs: list[tuple[str, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output, name=name: outputs.append((name, output)))
        for name, module in transformer.named_modules(prefix="transformer")
        if isinstance(module, nn.LayerNorm) and module.weight is not None and module.bias is not None
    ]

    def compare(module: nn.Module, inputs: Any, output: Any) -> None:
        if outputs and outputs[-1][1] is output.last_hidden_state:
            found.append(outputs[-1][0])

    hooks.append(transformer.register_forward_hook(compare))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
