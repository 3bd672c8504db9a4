"""SigLIP's two towers: transformers' own modules, which include pooling and projection."""

from __future__ import annotations

import math
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor, nn

TEXT_FAMILY = "siglip_text_model"


class SiglipImageTower(nn.Module):
    """Encode normalised pixels as one vector per image: a vision transformer with attention pooling.

    Source: Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023; the pooling is the head of "Scaling
    Vision Transformers" (CVPR 2022).

    Args:
        config: keys of transformers' ``SiglipVisionConfig``. Position embeddings for another image size are resampled
            when weights are loaded.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        from transformers import SiglipVisionModel

        self.transformer = _inner(SiglipVisionModel(_build_config(config)), "vision_model")
        self.register_load_state_dict_pre_hook(_resample_positions)

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Encode pixels; the result is not normalised."""
        return self.transformer(pixel_values=pixels).pooler_output


class SiglipTextTower(nn.Module):
    """Encode tokens as one vector per text: a bidirectional transformer with a projection of its last token.

    The last token may be padding.

    Args:
        config: keys of transformers' ``SiglipTextConfig``.
        tokenizer: a Hugging Face tokenizer. Padding is masked in the attention if its ``model_input_names`` include
            ``attention_mask``, which those of the published models do not.
    """

    def __init__(self, config: dict[str, Any], tokenizer: Any) -> None:
        super().__init__()
        from transformers import SiglipTextModel

        self.transformer = _inner(SiglipTextModel(_build_config(config)), "text_model")
        self.pad_id = tokenizer.pad_token_id
        self.masked = "attention_mask" in tokenizer.model_input_names
        self.padding_side = tokenizer.padding_side
        # Where the end-of-text token is also the padding, each text has one of its own.
        self.own_padding = tokenizer("a")["input_ids"].count(self.pad_id)

    def forward(self, tokens: Int64[Tensor, "batch tokens"]) -> Float[Tensor, "batch dim"]:
        """Encode tokens; the result is not normalised."""
        mask = self._valid_tokens(tokens).long() if self.masked else None
        return self.transformer(input_ids=tokens, attention_mask=mask).pooler_output

    def _valid_tokens(self, tokens: Tensor) -> Tensor:
        """Return the mask of tokens that are not padding, bool ``[batch, tokens]``."""
        padding = (tokens == self.pad_id).long()
        if self.padding_side == "left":
            return padding.flip(1).cumsum(1).flip(1) <= self.own_padding
        return padding.cumsum(1) <= self.own_padding


def _build_config(values: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(**values)


def _resample_positions(tower: nn.Module, tensors: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Resample position embeddings of another image size to this tower's grid, as open_clip and timm do."""
    from timm.layers import resample_abs_pos_embed

    key = f"{prefix}transformer.embeddings.position_embedding.weight"
    wanted = tower.get_parameter("transformer.embeddings.position_embedding.weight").shape
    if key in tensors and tensors[key].shape != wanted:
        side = math.isqrt(wanted[0])
        tensors[key] = resample_abs_pos_embed(tensors[key][None], [side, side], num_prefix_tokens=0)[0]


def _inner(model: Any, name: str) -> nn.Module:
    """Return the module with the tower's tensors, which another module wraps before transformers 5."""
    return getattr(model, name, model)
