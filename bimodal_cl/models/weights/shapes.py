"""Derive the sizes of a model's towers from its tensors' shapes, and find open_clip's configs of the same sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import Tensor

_TEXT_NAMES = ("positional_embedding", "token_embedding.", "transformer.", "ln_final.", "text_projection")
# Suffix of the variant of a config for weights trained with OpenAI's approximation of GELU.
QUICK_GELU = "-quickgelu"

Sizes = dict[str, Any]


def with_text_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors from OpenAI's flat layout to the names of a ``DualEncoder``; other layouts are kept."""
    if "positional_embedding" not in tensors and "token_embedding.weight" not in tensors:
        return dict(tensors)
    return {f"text.{name}" if name.startswith(_TEXT_NAMES) else name: tensor for name, tensor in tensors.items()}


def measure(tensors: Mapping[str, Tensor]) -> Sizes | None:
    """Return the sizes of OpenAI's ViT or ResNet and of open_clip's text transformer; None for other layouts."""
    tensors = with_text_prefix(tensors)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    try:
        context_length, text_width = shapes["text.positional_embedding"]
        shape: Sizes = {
            "vocab_size": shapes["text.token_embedding.weight"][0],
            "context_length": context_length,
            "text_width": text_width,
            "text_layers": _count_layers(shapes, "text.transformer.resblocks."),
            "embed_dim": shapes.get("text.text_projection", (0, 0))[1] or shapes["text.text_projection.weight"][0],
        }
        if "visual.conv1.weight" in shapes and "visual.class_embedding" in shapes:
            return shape | _measure_vit(shapes)
        return shape | _measure_resnet(shapes)
    except (KeyError, ValueError, IndexError, ZeroDivisionError):
        return None


def _measure_vit(shapes: Mapping[str, tuple[int, ...]]) -> Sizes:
    width, _, patch_size, _ = shapes["visual.conv1.weight"]
    grid = math.isqrt(shapes["visual.positional_embedding"][0] - 1)
    return {
        "layers": _count_layers(shapes, "visual.transformer.resblocks."),
        "width": width,
        "patch_size": patch_size,
        "mlp_width": shapes["visual.transformer.resblocks.0.mlp.c_fc.weight"][0],
        "image_size": grid * patch_size,
    }


def _measure_resnet(shapes: Mapping[str, tuple[int, ...]]) -> Sizes:
    positions = shapes["visual.attnpool.positional_embedding"][0]
    return {
        "layers": tuple(_count_layers(shapes, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)),
        "width": shapes["visual.layer1.0.conv1.weight"][0],
        "patch_size": None,
        "mlp_width": None,
        "image_size": math.isqrt(positions - 1) * 32,
    }


def _count_layers(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix)})


@cache
def _known_shapes() -> dict[str, Sizes]:
    """Return the sizes of those open_clip configs that have open_clip's own towers on both sides."""
    import open_clip
    from open_clip import CLIPTextCfg, CLIPVisionCfg

    known = {}
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        vision, text = CLIPVisionCfg(**config["vision_cfg"]), CLIPTextCfg(**config["text_cfg"])
        if "multimodal_cfg" in config or vision.timm_model_name or text.hf_model_name:
            continue
        resnet = isinstance(vision.layers, (list, tuple))
        known[name] = {
            "vocab_size": text.vocab_size,
            "context_length": text.context_length,
            "text_width": text.width,
            "text_layers": text.layers,
            "embed_dim": config["embed_dim"],
            "layers": tuple(vision.layers) if isinstance(vision.layers, (list, tuple)) else vision.layers,
            "width": vision.width,
            "patch_size": None if resnet else vision.patch_size,
            "mlp_width": None if resnet else int(vision.width * vision.mlp_ratio),
            "image_size": vision.image_size,
        }
    return known


def matching_names(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return open_clip's configs of these sizes, QuickGELU variants last; of the same image size, if there are any."""
    shape = measure(tensors)
    if shape is None:
        return []
    fixed = shape.keys() - {"image_size"}
    same = [name for name, known in _known_shapes().items() if all(known[key] == shape[key] for key in fixed)]
    exact = [name for name in same if _known_shapes()[name]["image_size"] == shape["image_size"]]
    return sorted(exact or same, key=lambda name: (name.endswith(QUICK_GELU), len(name)))
