"""Write a dual encoder as a Hugging Face folder: ``CLIPModel`` or ``SiglipModel``, tokenizer and preprocessing."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image

from bimodal_cl.models.dual_encoder import DualEncoder
from bimodal_cl.models.export.huggingface_clip import build_clip
from bimodal_cl.models.export.parity import CAPTIONS, NotExported, require_equal, sample_pixels
from bimodal_cl.models.tokenizers import is_hugging_face
from bimodal_cl.models.weights.transformers_loading import load_transformers, quiet_transformers


def write_huggingface(encoder: DualEncoder, folder: Path) -> list[str]:
    """Write the folder, and load it with transformers to compare features.

    Args:
        encoder: the model, in evaluation mode on the CPU.
        folder: where to write; it is made.

    Returns:
        What transformers does otherwise although it loads the model, one line each.

    Raises:
        NotExported: transformers has no such model, or computes other features; what was written is to be deleted.
    """
    siglip = encoder.architecture.hf_vision_config is not None
    model = _build_siglip(encoder) if siglip else build_clip(encoder)
    preprocessor = _preprocessor(encoder)
    with quiet_transformers():
        tokenizer = _build_tokenizer(encoder)
        folder.mkdir()
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n", "utf-8")
    _compare(encoder, folder, type(model))
    lines = []
    if encoder.logit_bias is not None and not siglip:
        lines.append("CLIPModel has no logit bias; its logits lack the constant that the loss has learned")
    if encoder.transform.resize_mode == "longest":
        lines.append("images that are resized to their longest side need transformers 5")
    if encoder.architecture.preprocess.get("convention", "open_clip") == "open_clip":
        lines.append("transformers rounds resized images by its own rules: pixels may differ by a grey level")
    return lines


def _build_siglip(encoder: DualEncoder) -> Any:
    from transformers import SiglipConfig, SiglipModel

    vision, text = encoder.architecture.hf_vision_config, encoder.architecture.hf_text_config
    model = SiglipModel(SiglipConfig(vision_config=vision, text_config=text))
    names = {"visual.transformer.": "vision_model.", "text.transformer.": "text_model."}
    tensors = {}
    for name, tensor in encoder.state_dict().items():
        prefix = next((prefix for prefix in names if name.startswith(prefix)), None)
        key = name if prefix is None else names[prefix] + name.removeprefix(prefix)
        tensors[key] = tensor.reshape(1) if prefix is None else tensor
    model.load_state_dict(tensors)
    return model.eval()


def _build_tokenizer(encoder: DualEncoder) -> Any:
    """Return the model's Hugging Face tokenizer, or transformers' counterpart of open_clip's.

    Raises:
        NotExported: options of open_clip's tokenizer that transformers' does not have.
    """
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizerFast

    tokenizer: Any = encoder.tokenizer
    if is_hugging_face(tokenizer):
        if tokenizer.tokenizer_mode or getattr(tokenizer, "strip_sep_token", False):
            raise NotExported("its tokenizer changes tokens as open_clip does and transformers does not")
        return tokenizer.tokenizer
    options = encoder.architecture.text.get("tokenizer_kwargs") or {}
    if any(value != {"clean": "lower"}.get(key) for key, value in options.items()):
        raise NotExported(f"CLIPTokenizer has no counterpart of tokenizer_kwargs {options}")
    assert isinstance(tokenizer, SimpleTokenizer)
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {special.get(piece, piece): number for piece, number in tokenizer.encoder.items()}
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
    length = encoder.architecture.text["context_length"]
    with TemporaryDirectory() as folder:  # the one form that transformers reads before and since version 5
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
        Path(folder, "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n", "utf-8")
        return CLIPTokenizerFast.from_pretrained(folder, model_max_length=length)


def _preprocessor(encoder: DualEncoder) -> dict[str, Any]:
    """Return the content of ``preprocessor_config.json``."""
    side, transform = encoder.image_size, encoder.transform
    levels = {transform.fill_color} if isinstance(transform.fill_color, int) else set(transform.fill_color)
    if levels != {0}:
        raise NotExported(f"transformers pads images with black, not with fill_color {transform.fill_color}")
    length = transform.resize_size or side
    sizes: dict[str, dict[str, int]] = {
        "shortest": {"shortest_edge": length},
        "longest": {"max_height": length, "max_width": length},
        "squash": {"height": length, "width": length},
    }
    size = sizes.get(transform.resize_mode)
    if size is not None and transform.max_long_side is not None:
        size["longest_edge"] = transform.max_long_side
    preprocess = encoder.architecture.preprocess
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": size is not None,
        **({} if size is None else {"size": size}),
        "resample": int(Image.Resampling[transform.interpolation.upper()]),
        "do_center_crop": transform.resize_mode != "squash" or length != side,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess["mean"]),
        "image_std": list(preprocess["std"]),
    }


@torch.no_grad()
def _compare(encoder: DualEncoder, folder: Path, model_class: Any) -> None:
    from transformers import AutoTokenizer

    theirs = load_transformers(model_class, folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    length = encoder.architecture.text["context_length"]
    tokens = tokenizer(
        list(CAPTIONS), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).to(encoder.device)
    pixels = sample_pixels(encoder)
    require_equal("image", _unit(theirs.get_image_features(pixel_values=pixels)), encoder.encode_image(pixels))
    ids = {name: tokens[name] for name in ("input_ids", "attention_mask") if name in tokens}
    require_equal("text", _unit(theirs.get_text_features(**ids)), encoder.encode_text(CAPTIONS))


def _unit(output: Any) -> torch.Tensor:
    """Return unit-norm features; ``get_*_features`` returns a tensor before transformers 5, an object since."""
    return torch.nn.functional.normalize(getattr(output, "pooler_output", output), dim=-1)
