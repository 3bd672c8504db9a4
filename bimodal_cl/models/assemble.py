"""Assemble a dual encoder: build its towers, load weights for the whole model, and run both towers once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bimodal_cl.errors import UserError, one_line
from bimodal_cl.models.architecture import Architecture
from bimodal_cl.models.dual_encoder import DualEncoder
from bimodal_cl.models.tokenizers import build_tokenizer
from bimodal_cl.models.towers.build import build_image_tower, build_text_tower, resize_timm_tower, with_text_config
from bimodal_cl.models.towers.timm_file import TimmFile
from bimodal_cl.models.weights.state_dict import Pretrained, load_pretrained


def assemble(
    architecture: Architecture,
    weights: Pretrained | None = None,
    image_size: int | None = None,
    tokenizer_folder: Path | None = None,
    timm_file: TimmFile | None = None,
) -> DualEncoder:
    """Build an architecture, load weights for the whole model if given, and run both towers once.

    Args:
        architecture: what to build.
        weights: weights of the whole model; None: the towers' own, or random ones.
        image_size: side of the images in pixels, to override the architecture's.
        tokenizer_folder: folder with a Hugging Face tokenizer's files, to override where the architecture finds them.
        timm_file: weights of a timm tower alone; not together with `weights`.

    Raises:
        UserError: as :func:`bimodal_cl.models.build_model`.
    """
    image_size = image_size or architecture.image_size
    if weights is not None:
        # The preprocessing's lengths belong to the weights' image size; they are rescaled with it below.
        architecture = architecture.without_tower_weights().with_image_size(
            weights.image_size or architecture.image_size
        )
        architecture = architecture.with_preprocess(weights.preprocess)
        if weights.quick_gelu is not None:
            architecture = replace(architecture, quick_gelu=weights.quick_gelu)
        if architecture.init_logit_bias is None and weights.logit_bias is not None:
            architecture = replace(architecture, init_logit_bias=weights.logit_bias)
    timm = bool(architecture.vision.get("timm_model_name"))
    # timm resamples position embeddings of a tower with loaded weights; open_clip resamples them while loading.
    native = weights.image_size if weights is not None and weights.image_size is not None else architecture.image_size
    architecture = architecture.with_image_size(native if timm and weights is not None else image_size)
    encoder = build_encoder(architecture, tokenizer_folder, timm_file)
    if weights is not None:
        load_pretrained(encoder, weights, f"'{architecture.name}'" if architecture.name else "this model")
        if timm and image_size != native:
            resize_timm_tower(encoder.visual, image_size)
            encoder.architecture = architecture.with_image_size(image_size)
    try_towers(encoder)
    return encoder


def build_encoder(
    architecture: Architecture, tokenizer_folder: Path | None = None, timm_file: TimmFile | None = None
) -> DualEncoder:
    """Build the towers and their tokenizer, without running them.

    Args:
        architecture: what to build; its towers may load weights of their own.
        tokenizer_folder, timm_file: as :func:`assemble`.

    Raises:
        UserError: a tower or the tokenizer cannot be built.
    """
    architecture = with_text_config(architecture)
    tokenizer = build_tokenizer(architecture.text, tokenizer_folder)
    visual, notes = build_image_tower(architecture, timm_file)
    text = build_text_tower(architecture, tokenizer)
    encoder = DualEncoder(visual, text, tokenizer, architecture)
    encoder.notes += notes
    return encoder


def try_towers(encoder: DualEncoder) -> None:
    """Encode one image and one text of full length, so that an unusable tower fails here and not during training.

    Parameters that no gradient reaches, such as layers after the pooled one, are frozen: data-parallel training waits
    for the gradient of every parameter with ``requires_grad``.

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
    """Return the ids of the parameters in the autograd graph of `output`; no gradient is computed."""
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
