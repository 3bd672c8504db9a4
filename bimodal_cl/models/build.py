"""Arguments to a dual encoder: resolve the architecture, find the weights, build, load, try it once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bimodal_cl.errors import UserError, one_line
from bimodal_cl.models.architecture import (
    Architecture,
    check_image_size,
    inline_architecture,
    refuse_idle_keys,
)
from bimodal_cl.models.dual_encoder import DualEncoder
from bimodal_cl.models.names import configured_architecture
from bimodal_cl.models.tokenizers import build_tokenizer
from bimodal_cl.models.towers.from_keys import build_image_tower, build_text_tower, resize_timm_tower, with_text_config
from bimodal_cl.models.weights.tensors import (
    ARCHITECTURE_FILE,
    TOKENIZER_FOLDER,
    WEIGHTS_FILE,
    Pretrained,
    load_pretrained,
)


def build_model(
    name: str | None = None,
    pretrained: str | None = None,
    embed_dim: int | None = None,
    vision: Mapping[str, Any] | None = None,
    text: Mapping[str, Any] | None = None,
    image_size: int | None = None,
) -> DualEncoder:
    """Build a dual encoder in training mode on the CPU.

    Either `name`, or `embed_dim` with `vision` and `text`, or `pretrained` alone, where it says what it is. Random
    weights come from torch's global generator, so a seed gives the same model again.

    Args:
        name: an open_clip config, such as ``ViT-B-32`` or ``RN50``, also in OpenAI's spelling ``ViT-B/32``.
        pretrained: weights for the whole model: one of open_clip's tags for `name`, a file of weights, or any name
            that :func:`bimodal_cl.models.load_model` takes. Preprocessing comes with them, and so does OpenAI's
            approximation of GELU.
        embed_dim: width of the shared space, at least 1.
        vision: keys of open_clip's ``CLIPVisionCfg``, among them ``timm_model_name`` for a timm tower.
        text: keys of open_clip's ``CLIPTextCfg``, among them ``hf_model_name`` for a Hugging Face tower (a local
            folder or a hub name; ``hf_model_pretrained: false`` for random weights; ``hf_tokenizer_name`` is the
            same by default).
        image_size: side of the images in pixels, where it is not to be the architecture's; pretrained position
            embeddings are resampled.

    Raises:
        UserError: a name, key, tag or file that does not exist, keys that do not fit together, or weights that are
            neither here nor on a hub that answers.
    """
    from bimodal_cl.models.load import load_configured

    if image_size is not None:
        check_image_size(image_size, "model.image_size")
    inline = {"embed_dim": embed_dim, "vision": vision, "text": text}
    bare = name is None and all(value is None for value in inline.values())
    architecture = None if bare and pretrained is not None else _resolve_architecture(name, embed_dim, vision, text)
    if pretrained is None:
        assert architecture is not None
        return assemble(architecture, None, image_size).train()
    return load_configured(pretrained, architecture, image_size).train()


def _resolve_architecture(
    name: str | None, embed_dim: int | None, vision: Mapping[str, Any] | None, text: Mapping[str, Any] | None
) -> Architecture:
    inline = {"embed_dim": embed_dim, "vision": vision, "text": text}
    if name is not None:
        for key, value in inline.items():
            if value is not None:
                raise UserError(f"model.{key} cannot be given beside model.name '{name}': its config has its own")
        return configured_architecture(name)
    if embed_dim is None or vision is None or text is None:
        missing = [key for key, value in inline.items() if value is None]
        raise UserError(f"a model needs model.name, or model.{' and model.'.join(missing)} as well")
    architecture = inline_architecture(embed_dim, vision, text)
    refuse_idle_keys(architecture)
    return architecture


def assemble(
    architecture: Architecture,
    weights: Pretrained | None = None,
    image_size: int | None = None,
    tokenizer_folder: Path | None = None,
) -> DualEncoder:
    """Build an architecture, load whole-model weights if there are any, and try both towers once.

    Raises:
        UserError: as :func:`build_model`.
    """
    image_size = image_size or architecture.image_size
    if weights is not None:
        # Lengths in the preprocessing are for the weights' own image size, and change with it below.
        architecture = architecture.without_tower_weights().with_image_size(
            weights.image_size or architecture.image_size
        )
        architecture = architecture.with_preprocess(weights.preprocess)
        if weights.quick_gelu is not None:
            architecture = replace(architecture, quick_gelu=weights.quick_gelu)
        if architecture.init_logit_bias is None and weights.logit_bias is not None:
            architecture = replace(architecture, init_logit_bias=weights.logit_bias)
    timm = bool(architecture.vision.get("timm_model_name"))
    # timm resamples position embeddings in a tower that has its weights; open_clip does so while it loads them.
    native = weights.image_size if weights is not None and weights.image_size is not None else architecture.image_size
    architecture = architecture.with_image_size(native if timm and weights is not None else image_size)
    encoder = _build_encoder(architecture, tokenizer_folder)
    if weights is not None:
        load_pretrained(encoder, weights, f"'{architecture.name}'" if architecture.name else "this model")
        if timm and image_size != native:
            resize_timm_tower(encoder.visual, image_size)
            encoder.architecture = architecture.with_image_size(image_size)
    _try_towers(encoder)
    return encoder


def _build_encoder(architecture: Architecture, tokenizer_folder: Path | None = None) -> DualEncoder:
    architecture = with_text_config(architecture)
    tokenizer = build_tokenizer(architecture.text, tokenizer_folder)
    visual = build_image_tower(architecture)
    text = build_text_tower(architecture, tokenizer)
    return DualEncoder(visual, text, tokenizer, architecture)


def build_from_folder(folder: Path) -> DualEncoder:
    """Return the model that :meth:`DualEncoder.save` wrote, in evaluation mode.

    Raises:
        UserError: a file is missing or damaged, or the weights are not this architecture's.
    """
    for file in (ARCHITECTURE_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise UserError(f"{folder}: no checkpoint of a model, '{file}' is missing")
    architecture = Architecture.read(folder / ARCHITECTURE_FILE).without_tower_weights()
    encoder = _build_encoder(architecture, folder / TOKENIZER_FOLDER)
    encoder.load_weights(folder)
    _try_towers(encoder)
    return encoder.eval()


def _try_towers(encoder: DualEncoder) -> None:
    """Encode one image and one text of full length, so that what cannot work fails here and not in a run.

    Parameters that no gradient reaches (layers behind the one that is pooled, say) are frozen: data-parallel training
    waits for the gradient of every parameter that asks for one.

    Raises:
        UserError: a tower fails on its input, or its feature has another width.
    """
    training = encoder.training
    encoder.eval()
    size, context_length = encoder.image_size, encoder.architecture.text["context_length"]
    image = torch.zeros(1, 3, size, size)
    trials: list[tuple[str, nn.Module, Tensor, str]] = [
        ("image", encoder.visual, image, f"images of {size} px"),
        ("text", encoder.text, encoder.tokenize(["a " * context_length]), f"{context_length} tokens"),
    ]
    for modality, tower, example, what in trials:
        try:
            with torch.enable_grad():
                features = tower(example)
        except Exception as error:
            raise UserError(f"the {modality} tower cannot take {what} ({one_line(error)})") from error
        if features.shape != (1, encoder.dim):
            shape = list(features.shape[1:])
            raise UserError(f"the {modality} tower gives features of shape {shape}, embed_dim is {encoder.dim}")
        reached = _reached_parameters(features)
        for parameter in tower.parameters():
            if id(parameter) not in reached:
                parameter.requires_grad_(False)
    encoder.train(training)


def _reached_parameters(output: Tensor) -> set[int]:
    """Return the ids of the parameters that `output` has a gradient in, without computing any."""
    reached: set[int] = set()
    seen: set[Any] = set()
    pending = [output.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            reached.add(id(node.variable))
        pending.extend(parent for parent, _ in node.next_functions)
    return reached
