"""Use a Hugging Face text model as a text tower: any encoder that ``AutoModel`` loads, pooled and projected."""

from __future__ import annotations

import inspect
import json
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.models.locate.hub import why_not_fetched
from bimodal_cl.models.towers.heads import HEADS, build_text_head
from bimodal_cl.models.weights.transformers_loading import quiet_transformers, refuse_other_weights

POOLERS = ("mean_pooler", "max_pooler", "cls_pooler", "cls_last_hidden_state_pooler")
PROJECTIONS = (*HEADS, "none")


class HuggingFaceTextTower(nn.Module):
    """Encode tokens as one vector per text: transformer, pooling over the valid tokens, projection.

    Parameters are named as in open_clip's adapter (``transformer.*``, ``proj.*``), so that its checkpoints load here.
    Unlike that adapter, this tower supports any family of models, reads the projection's width from the configuration,
    and masks the padding that the tokenizer really uses.

    Args:
        transformer: returns ``last_hidden_state`` ``[batch, tokens, width]`` and, optionally for ``cls_pooler``,
            ``pooler_output`` ``[batch, width]``.
        width: width of the transformer's output.
        dim: width of the shared space.
        context_length: number of tokens of a text.
        pad_id: the tokenizer's padding token.
        eos_id: the tokenizer's end-of-text token, which some tokenizers also use as padding.
        pooler: ``mean_pooler``, ``max_pooler``, ``cls_pooler`` (the model's own pooled output if it has one, else the
            first token) or ``cls_last_hidden_state_pooler`` (the first token).
        projection: a head of :mod:`~bimodal_cl.models.towers.heads`, or ``none``.

    Raises:
        UserError: the pooler or projection is unknown, or the projection is ``none`` and the widths differ.
    """

    def __init__(
        self,
        transformer: nn.Module,
        width: int,
        dim: int,
        context_length: int,
        pad_id: int,
        eos_id: int | None,
        pooler: str,
        projection: str,
    ) -> None:
        super().__init__()
        check_head(pooler, projection)
        if projection == "none" and width != dim:
            raise UserError(f"model.text.hf_proj_type 'none' needs embed_dim {width} (the text model's), got {dim}")
        self.transformer = transformer
        self.context_length = context_length
        self.pad_id, self.eos_id, self.pooler = pad_id, eos_id, pooler
        self.proj = nn.Identity() if projection == "none" else build_text_head(projection, width, dim)

    def forward(self, tokens: Int64[Tensor, "batch tokens"]) -> Float[Tensor, "batch dim"]:
        """Encode tokens; the result is not normalised."""
        valid = self.valid_tokens(tokens)
        output = self.transformer(input_ids=tokens, attention_mask=valid.long())
        return self.proj(self._pool(output, valid))

    def valid_tokens(self, tokens: Tensor) -> Tensor:
        """Return the mask of tokens that are not padding, bool ``[batch, tokens]``."""
        padding = tokens == self.pad_id
        if self.pad_id != self.eos_id:
            return ~padding
        # The first end-of-text token belongs to the text; those after it are padding.
        return (padding.cumsum(dim=1) - padding.long()) == 0

    def _pool(self, output: Any, valid: Tensor) -> Tensor:
        hidden = output.last_hidden_state
        if self.pooler == "mean_pooler":
            weight = valid.unsqueeze(-1).to(hidden.dtype)
            return (hidden * weight).sum(dim=1) / weight.sum(dim=1)
        if self.pooler == "max_pooler":
            return hidden.masked_fill(~valid.unsqueeze(-1), float("-inf")).amax(dim=1)
        pooled = getattr(output, "pooler_output", None) if self.pooler == "cls_pooler" else None
        return hidden[:, 0] if pooled is None else pooled


def check_head(pooler: str, projection: str) -> None:
    """Refuse an unknown pooler or projection.

    Raises:
        UserError: the message names the key, its value and the nearest valid choice.
    """
    if pooler not in POOLERS:
        raise UserError(f"model.text.hf_pooler_type '{pooler}' is unknown{did_you_mean(pooler, POOLERS)}")
    if projection not in PROJECTIONS:
        raise UserError(f"model.text.hf_proj_type '{projection}' is unknown{did_you_mean(projection, PROJECTIONS)}")


def load_text_config(name: str) -> dict[str, Any]:
    """Return a Hugging Face model's configuration from a local folder, the hub's cache or the hub.

    Raises:
        UserError: the configuration cannot be found or read.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name)
    except Exception as error:
        raise UserError(
            f"model.text.hf_model_name '{name}': no such folder with a config.json, and it cannot be loaded from the "
            f"hub ({why_not_fetched(error)})"
        ) from error
    return json.loads(config.to_json_string(use_diff=False))


def build_transformer(
    name: str, config_values: dict[str, Any], pretrained: bool, pooled: bool
) -> tuple[nn.Module, int]:
    """Build a text model in float32, with random or pretrained weights.

    Args:
        name: local folder or hub name of the weights.
        config_values: the model's configuration from :func:`load_text_config`.
        pretrained: whether to load the weights.
        pooled: whether to keep an optional pooling layer; unused, its parameters would get no gradient.

    Returns:
        The model (of an encoder-decoder, the encoder) and the width of its output.

    Raises:
        UserError: the family is unknown or has several towers, or the weights cannot be read.
    """
    from transformers import MODEL_MAPPING, AutoConfig, AutoModel

    values = dict(config_values)
    family = values.pop("model_type", None)
    try:
        config = AutoConfig.for_model(family, **values)
        model_class = MODEL_MAPPING[type(config)]
    except (KeyError, ValueError) as error:
        raise UserError(f"model.text.hf_model_name '{name}': no text model of family '{family}' is known") from error
    if hasattr(config, "text_config"):
        raise UserError(f"model.text.hf_model_name '{name}': family '{family}' has several towers, not one for text")
    options: dict[str, Any] = {"dtype": torch.float32}
    if "add_pooling_layer" in inspect.signature(model_class.__init__).parameters:
        options["add_pooling_layer"] = pooled
    try:
        if pretrained:
            with quiet_transformers():
                model, report = AutoModel.from_pretrained(
                    name, config=config, output_loading_info=True, ignore_mismatched_sizes=True, **options
                )
            refuse_other_weights(report, f"model.text.hf_model_name '{name}'", headless=True)
        else:
            model = AutoModel.from_config(config, **options)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"model.text.hf_model_name '{name}' cannot be loaded ({why_not_fetched(error)})") from error
    if getattr(config, "is_encoder_decoder", False):
        model = model.get_encoder()
    return model, int(config.hidden_size)
