"""Load any trained model as a dual encoder: by path, by open_clip name, or from the Hugging Face hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.json_files import read_mapping
from bimodal_cl.models.architecture import Architecture
from bimodal_cl.models.assemble import assemble, build_encoder, try_towers
from bimodal_cl.models.compatibility import match_architectures
from bimodal_cl.models.dual_encoder import DualEncoder
from bimodal_cl.models.features.heads import is_heads
from bimodal_cl.models.features.join import join_tensors, tokenizer_of
from bimodal_cl.models.huggingface.folder import load_huggingface
from bimodal_cl.models.locate.names import locate_model
from bimodal_cl.models.locate.open_clip_names import canonical_architecture, locate_tag
from bimodal_cl.models.locate.paths import expand_name, near_name, near_path
from bimodal_cl.models.locate.source import ModelSource
from bimodal_cl.models.open_clip_config import architecture_from_open_clip, named_architecture
from bimodal_cl.models.weights.file_names import (
    ARCHITECTURE_FILE,
    NUMPY_SUFFIXES,
    OPEN_CLIP_CONFIG,
    TEXT_CONFIG,
    TOKENIZER_FILES,
    WEIGHT_SUFFIXES,
    WEIGHTS_FILE,
)
from bimodal_cl.models.weights.infer import infer_architecture, quick_gelu_of, refuse_other_layouts
from bimodal_cl.models.weights.state_dict import Pretrained, load_pretrained
from bimodal_cl.models.weights.weight_file import read_weight_file


def load_model(
    path_or_tag: str | Path, device: str | torch.device = "cpu", weights: Literal["model", "ema"] = "model"
) -> DualEncoder:
    """Load a trained model, in evaluation mode.

    Args:
        path_or_tag: one of

            - a folder: a run (its latest checkpoint), a checkpoint, an export in open_clip's format, or a Hugging Face
              CLIP or SigLIP model;
            - a weights file from which the architecture can be inferred, such as OpenAI's TorchScript archives, or
              ``NAME:FILE`` with an open_clip architecture;
            - open_clip's ``NAME/TAG``, such as ``ViT-B-32/laion2b_s34b_b79k``, ``local-dir:FOLDER`` or
              ``hf-hub:ORGANISATION/NAME``; or OpenAI's ``ViT-B/32``;
            - a repository of the Hugging Face hub.
        device: the device to move the weights to.
        weights: of a run or checkpoint, ``"model"``, those that were trained, or ``"ema"``, their exponential moving
            average, which a run with ``ema.decay`` keeps.

    Raises:
        UserError: no such model exists, it has no averaged weights, it is not a dual encoder, or its files are damaged.
    """
    return load_source(locate_model(path_or_tag, weights=weights)).to(device).eval()


def load_saved(folder: Path, weights: str = WEIGHTS_FILE) -> DualEncoder:
    """Load the folder that :meth:`DualEncoder.save` wrote, in evaluation mode, on the CPU.

    Args:
        folder: such a folder.
        weights: name of the file of weights in it.

    Raises:
        UserError: a file is missing or damaged, or the weights do not match the architecture.
    """
    for file in (ARCHITECTURE_FILE, weights):
        if not (folder / file).is_file():
            raise UserError(f"{folder}: not a saved model: '{file}' is missing")
    architecture = Architecture.read(folder / ARCHITECTURE_FILE).without_tower_weights()
    encoder = build_encoder(architecture, tokenizer_of(folder))
    if is_heads(folder):
        load_pretrained(encoder, Pretrained(folder / weights, join_tensors(folder, weights)), "its architecture")
    else:
        encoder.load_weights(folder / weights)
    try_towers(encoder)
    return encoder.eval()


def load_configured(pretrained: str, wanted: Architecture | None, image_size: int | None) -> DualEncoder:
    """Load ``model.pretrained`` of a config into the architecture of that config, or else into its own.

    Args:
        pretrained: a tag of the open_clip config that `wanted` was made from, or any name of a model.
        wanted: the architecture of ``model.name`` or of the config's towers; None where neither is given.
        image_size: side of the images in pixels; None: that of `wanted`, else that of the weights.

    Raises:
        UserError: no such weights exist, or they have another architecture.
    """
    import open_clip

    name = None if wanted is None else wanted.name
    what = f"model.pretrained '{pretrained}'"
    if name is not None and open_clip.is_pretrained_cfg(name, pretrained):
        return load_source(locate_tag(name, pretrained), wanted, image_size)
    path = Path(expand_name(pretrained))
    is_word = len(path.parts) == 1 and ":" not in pretrained and path.suffix not in WEIGHT_SUFFIXES
    if is_word and not path.exists() and canonical_architecture(pretrained) is None:
        if name is None:
            raise UserError(f"{what}: no such file, and tags are known only for a model.name{near_path(path)}")
        tags = open_clip.list_pretrained_tags_by_model(name)
        near = near_name(pretrained, tags) or near_path(path) or did_you_mean(pretrained, tags)
        near = near or "; it has none"
        raise UserError(f"{what} is neither a file nor a tag of '{name}'{near}")
    source = locate_model(pretrained, "model.pretrained")
    if wanted is not None and source.architecture not in (None, name):
        own = f"model.name '{name}'" if name else "the towers of the config"
        raise UserError(f"{what} has the architecture '{source.architecture}', not that of {own}: leave one out")
    return load_source(source, wanted, image_size)


def load_source(source: ModelSource, wanted: Architecture | None = None, image_size: int | None = None) -> DualEncoder:
    """Load a model that :func:`locate_model` found.

    Args:
        source: from :func:`bimodal_cl.models.locate.names.locate_model`.
        wanted: the architecture that it must have; None: its own.
        image_size: side of the images in pixels; None: that of `wanted`, else that of the weights.

    Raises:
        UserError: the files are damaged, or the architecture is not `wanted`.
    """
    if image_size is None and wanted is not None:
        image_size = wanted.image_size
    if source.kind == "weights":
        return _load_file(source, wanted, image_size)
    assert source.folder is not None
    if source.kind == "huggingface":
        return _resized(load_huggingface(source.folder, image_size), source, wanted, image_size)
    if source.kind == "checkpoint":
        found = Architecture.read(source.folder / ARCHITECTURE_FILE)
        if wanted is None and image_size in (None, found.image_size):
            return load_saved(source.folder, source.weights.name)
        tokenizer_folder = tokenizer_of(source.folder)
    else:
        found = _read_open_clip_config(source.folder / OPEN_CLIP_CONFIG)
        tokenizer_folder = source.folder
    has_tokenizer = any((tokenizer_folder / file).is_file() for file in TOKENIZER_FILES)
    if source.kind == "checkpoint" and is_heads(source.folder):
        tensors = join_tensors(source.folder, source.weights.name)
    else:
        file = read_weight_file(source.weights)
        refuse_other_layouts(file)
        tensors = file.tensors
    weights = Pretrained(source.weights, tensors, found.image_size)
    architecture = found if wanted is None else match_architectures(wanted, found, *_names_of(source, wanted))
    return assemble(architecture, weights, image_size, tokenizer_folder if has_tokenizer else None)


def _load_file(source: ModelSource, wanted: Architecture | None, image_size: int | None) -> DualEncoder:
    preprocess = dict(source.tag)
    tag_gelu = bool(source.tag.get("quick_gelu", False)) if source.tag else None
    if wanted is None and source.architecture is not None:
        wanted = named_architecture(source.architecture)
    if source.weights.suffix in NUMPY_SUFFIXES:
        if wanted is None:
            raise UserError(f"{source.weights}: does not state its architecture: give 'NAME:{source.weights}'")
        return assemble(wanted, Pretrained(source.weights, None, preprocess=preprocess), image_size)
    file = read_weight_file(source.weights)
    if wanted is None:
        wanted = infer_architecture(file)
    elif not source.tag:
        refuse_other_layouts(file)
    quick_gelu = tag_gelu if file.script is None else quick_gelu_of(file.script)
    return assemble(
        wanted, Pretrained(source.weights, file.tensors, quick_gelu=quick_gelu, preprocess=preprocess), image_size
    )


def _resized(
    encoder: DualEncoder, source: ModelSource, wanted: Architecture | None, image_size: int | None
) -> DualEncoder:
    """Return the model with the image size and training options of `wanted`, reassembled only where they differ."""
    found = encoder.architecture
    architecture = found if wanted is None else match_architectures(wanted, found, *_names_of(source, wanted))
    if architecture == found and image_size in (None, found.image_size):
        return encoder
    return assemble(architecture, Pretrained(source.weights, dict(encoder.state_dict()), found.image_size), image_size)


def _read_open_clip_config(path: Path) -> Architecture:
    config = read_mapping(path)
    if "model_cfg" not in config:
        raise UserError(f"{path}: key 'model_cfg' is missing")
    architecture = architecture_from_open_clip(config["model_cfg"], None, config.get("preprocess_cfg"), f"{path}: ")
    text_config = path.with_name(TEXT_CONFIG)
    if not architecture.text.get("hf_model_name") or not text_config.is_file():
        return architecture
    values = read_mapping(text_config)
    # An image-text model's own configuration, in a repository of both formats, is not that of its text tower.
    return architecture if "text_config" in values else replace(architecture, hf_text_config=values)


def _names_of(source: ModelSource, wanted: Architecture) -> tuple[str, str]:
    named = f"model.name '{wanted.name}'" if wanted.name else "the towers in model"
    return f"'{source.pretrained}'", named
