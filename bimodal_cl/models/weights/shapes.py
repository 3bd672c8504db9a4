"""Which architecture a file of tensors has, as far as their names and shapes tell.

Shapes do not tell how many heads share a width, nor which GELU follows it. Where an open_clip config has the same
shapes its heads are taken; OpenAI's archives follow a rule (heads of 64) and name the classes of their activations.
What stays open is asked for, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from torch import Tensor

from bimodal_cl.errors import UserError
from bimodal_cl.models.architecture import Architecture, inline_architecture, named_architecture
from bimodal_cl.models.weights.files import WeightFile
from bimodal_cl.models.weights.torchscript import ScriptedModule

_TEXT_NAMES = ("positional_embedding", "token_embedding.", "transformer.", "ln_final.", "text_projection")
_OPENAI_HEAD_WIDTH = 64
# A config and its twin for weights trained with OpenAI's approximation of GELU.
_TWIN = "-quickgelu"

Shape = dict[str, Any]


def with_text_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of OpenAI's flat layout under the names of a :class:`DualEncoder`, others as they are."""
    if "positional_embedding" not in tensors and "token_embedding.weight" not in tensors:
        return dict(tensors)
    return {f"text.{name}" if name.startswith(_TEXT_NAMES) else name: tensor for name, tensor in tensors.items()}


def measure(tensors: Mapping[str, Tensor]) -> Shape | None:
    """Return the sizes of OpenAI's ViT or ResNet beside open_clip's text transformer; None for other layouts."""
    tensors = with_text_prefix(tensors)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    try:
        context_length, text_width = shapes["text.positional_embedding"]
        shape: Shape = {
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


def _measure_vit(shapes: Mapping[str, tuple[int, ...]]) -> Shape:
    width, _, patch_size, _ = shapes["visual.conv1.weight"]
    grid = math.isqrt(shapes["visual.positional_embedding"][0] - 1)
    return {
        "layers": _count_layers(shapes, "visual.transformer.resblocks."),
        "width": width,
        "patch_size": patch_size,
        "mlp_width": shapes["visual.transformer.resblocks.0.mlp.c_fc.weight"][0],
        "image_size": grid * patch_size,
    }


def _measure_resnet(shapes: Mapping[str, tuple[int, ...]]) -> Shape:
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
def _known_shapes() -> dict[str, Shape]:
    """The shapes of open_clip's configs that have its own towers on both sides."""
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
    """Return open_clip's configs with the tensors' shapes, those of the same image size first, twins last."""
    shape = measure(tensors)
    if shape is None:
        return []
    fixed = shape.keys() - {"image_size"}
    same = [name for name, known in _known_shapes().items() if all(known[key] == shape[key] for key in fixed)]
    exact = [name for name in same if _known_shapes()[name]["image_size"] == shape["image_size"]]
    return sorted(exact or same, key=lambda name: (name.endswith(_TWIN), len(name)))


def infer_architecture(file: WeightFile) -> Architecture:
    """Return the architecture of a file that brings none.

    Raises:
        UserError: it is not told by what is in the file; the message says how to name it.
    """
    refuse_other_layouts(file)
    shape = measure(file.tensors)
    if shape is None:
        raise UserError(
            f"{file.path}: its architecture is not told by its tensors, as it is for OpenAI's ViT and ResNet: "
            f"{_advice(file)}"
        )
    names = matching_names(file.tensors)
    if file.script is not None:
        return _openai_architecture(file, shape, names)
    if not names:
        raise UserError(
            f"{file.path}: no open_clip config has its shapes, which do not tell the number of heads: {_advice(file)}"
        )
    name = names[0]
    if any(other == f"{name}{_TWIN}" for other in names):
        if file.experiment is None:
            raise UserError(
                f"{file.path}: has the shapes of '{name}', and does not say which GELU it was trained with: give "
                f"'{name}:{file.path}' (GELU, open_clip's) or '{name}{_TWIN}:{file.path}' (QuickGELU, OpenAI's), in a "
                f"config model.name and model.pretrained"
            )
        if "quickgelu" in file.experiment.lower():
            name += _TWIN
    return named_architecture(name).with_image_size(shape["image_size"])


def refuse_other_layouts(file: WeightFile) -> None:
    """Refuse tensors that are of one tower, of a captioning model, of an adapter, or under transformers' names.

    Raises:
        UserError: saying what they are and what to give instead.
    """
    tensors = file.tensors
    if any(".lora_" in name or name.startswith("base_model.model.") for name in tensors):
        raise UserError(f"{file.path}: holds a LoRA adapter: merge it into its base model, and give the merged model")
    if any(name.startswith("text_decoder.") for name in tensors):
        raise UserError(f"{file.path}: holds a captioning model (CoCa), not a dual encoder")
    if any(name.startswith(("vision_model.", "text_model.")) for name in tensors):
        raise UserError(
            f"{file.path}: holds a model under transformers' names: give the folder with its config.json, not the file"
        )
    if any(name.startswith("image_encoder.") for name in tensors):
        return  # Apple's MobileCLIP, which open_clip renames
    named = with_text_prefix(tensors)
    image, text = (any(name.startswith(part) for name in named) for part in ("visual.", "text."))
    if image != text:
        present, missing = ("image", "text") if image else ("text", "image")
        raise UserError(f"{file.path}: holds the {present} tower alone, without the {missing} tower of a dual encoder")
    if not image:
        shown = ", ".join(sorted(tensors)[:3])
        raise UserError(f"{file.path}: holds no dual encoder: its tensors are {shown}, ...")


def quick_gelu_of(script: ScriptedModule) -> bool:
    """Whether a TorchScript archive's model has OpenAI's approximation of GELU, by the classes that it names."""
    return "QuickGELU" in script.classes or "GELU" not in script.classes


def _openai_architecture(file: WeightFile, shape: Shape, names: list[str]) -> Architecture:
    """The rule of OpenAI's own loader, heads of 64, where neither a config nor the archive says how many there are."""
    assert file.script is not None
    quick_gelu = quick_gelu_of(file.script)
    if names:
        architecture = named_architecture(names[0]).with_image_size(shape["image_size"])
        return replace(architecture, quick_gelu=quick_gelu)
    kept = {"visual" in name: number for name, number in file.script.num_heads.items() if "attn" in name}
    text_heads = kept.get(False, shape["text_width"] // _OPENAI_HEAD_WIDTH)
    vision: dict[str, Any] = {"layers": shape["layers"], "width": shape["width"], "image_size": shape["image_size"]}
    image_heads = 1
    if shape["patch_size"] is not None:
        image_heads = kept.get(True, shape["width"] // _OPENAI_HEAD_WIDTH)
        vision |= {
            "patch_size": shape["patch_size"],
            "head_width": shape["width"] // max(1, image_heads),
            "mlp_ratio": shape["mlp_width"] / shape["width"],
        }
    if not text_heads or not image_heads:
        raise UserError(f"{file.path}: a tower is narrower than OpenAI's heads of 64: {_advice(file)}")
    text = {
        "context_length": shape["context_length"],
        "vocab_size": shape["vocab_size"],
        "width": shape["text_width"],
        "heads": text_heads,
        "layers": shape["text_layers"],
    }
    architecture = inline_architecture(shape["embed_dim"], vision, text, f"{file.path}: ")
    return replace(architecture, quick_gelu=quick_gelu)


def _advice(file: WeightFile) -> str:
    return (
        f"give 'NAME:{file.path}' with an open_clip config's NAME, in a config model.name or its towers beside "
        f"model.pretrained, or a folder with its open_clip_config.json"
    )
