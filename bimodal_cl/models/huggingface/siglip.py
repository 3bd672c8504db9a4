"""Load a Hugging Face ``SiglipModel``, or a SigLIP 2 of fixed resolution, as a dual encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from bimodal_cl.errors import UserError
from bimodal_cl.models.architecture import Architecture
from bimodal_cl.models.assemble import assemble
from bimodal_cl.models.dual_encoder import DualEncoder
from bimodal_cl.models.huggingface.preprocess import read_preprocess
from bimodal_cl.models.huggingface.tokenizer import read_tokenizer_keys
from bimodal_cl.models.tower_keys import check_image_size
from bimodal_cl.models.weights.transformers_loading import load_transformers

_TOWERS = {"vision_model.": "visual.transformer.", "text_model.": "text.transformer."}


def load_huggingface_siglip(folder: Path, image_size: int | None = None) -> DualEncoder:
    """Load a folder written by ``SiglipModel.save_pretrained``; see :mod:`bimodal_cl.models.huggingface.folder`.

    Raises:
        UserError: an option that changes the features and is not supported, or damaged files.
    """
    from transformers import SiglipModel

    model = load_transformers(SiglipModel, folder)
    encoder = assemble(_convert_config(model.config, folder), image_size=image_size)
    encoder.load_state_dict(_convert_weights(model.state_dict()))
    return encoder


def _convert_config(config: Any, folder: Path) -> Architecture:
    """Return the architecture of a ``SiglipConfig``."""
    vision, text = config.vision_config, config.text_config
    where = f"{folder}/config.json: "
    if not vision.vision_use_head:
        raise UserError(f"{where}vision_config.vision_use_head is false: the model has no image features")
    if vision.num_channels != 3:
        raise UserError(f"{where}vision_config.num_channels must be 3, got {vision.num_channels}")
    if text.projection_size != vision.hidden_size:
        raise UserError(
            f"{where}text_config.projection_size {text.projection_size} is not vision_config.hidden_size "
            f"{vision.hidden_size}: the features do not share a space"
        )
    keys = read_tokenizer_keys(folder, text.max_position_embeddings)
    if keys is None:
        raise UserError(f"{folder}: has no tokenizer (tokenizer.json or spiece.model)")
    size = check_image_size(vision.image_size, f"{where}vision_config.image_size")
    return Architecture(
        embed_dim=vision.hidden_size,
        vision={"image_size": size},
        text=keys,
        init_logit_bias=0.0,
        hf_vision_config=_as_json(vision),
        hf_text_config=_as_json(text),
    ).with_preprocess(read_preprocess(folder, "siglip", size))


def _as_json(config: Any) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return values


def _convert_weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a ``SiglipModel``'s tensors to those of a :class:`DualEncoder`."""
    converted = {name: tensors[name].reshape(()) for name in ("logit_scale", "logit_bias")}
    for theirs, ours in _TOWERS.items():
        names = [name for name in tensors if name.startswith(theirs)]
        converted |= {ours + name.removeprefix(theirs): tensors[name] for name in names}
    return converted
