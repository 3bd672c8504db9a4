"""Infer a model's architecture from the names and shapes of its tensors.

Shapes determine neither the number of attention heads nor the kind of GELU. The heads come from an open_clip config of
the same shapes; OpenAI's archives follow a rule (heads of width 64) and name the classes of their activations. What
remains unknown must be given by the user and is never guessed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bimodal_cl.errors import UserError
from bimodal_cl.models.architecture import Architecture
from bimodal_cl.models.open_clip_config import inline_architecture, named_architecture
from bimodal_cl.models.weights.shapes import QUICK_GELU, Sizes, matching_names, measure, with_text_prefix
from bimodal_cl.models.weights.torchscript import ScriptedModule
from bimodal_cl.models.weights.weight_file import WeightFile

_OPENAI_HEAD_WIDTH = 64


def infer_architecture(file: WeightFile) -> Architecture:
    """Infer the architecture of a weights file that comes without a configuration.

    Raises:
        UserError: the file does not determine it; the message says how to give it.
    """
    refuse_other_layouts(file)
    shape = measure(file.tensors)
    if shape is None:
        raise UserError(
            f"{file.path}: its architecture cannot be inferred from its tensors, unlike that of OpenAI's ViT and "
            f"ResNet: {_advice(file)}"
        )
    names = matching_names(file.tensors)
    if file.script is not None:
        return _openai_architecture(file, shape, names)
    if not names:
        raise UserError(
            f"{file.path}: no open_clip config has these shapes, and shapes do not determine the number of heads: "
            f"{_advice(file)}"
        )
    name = names[0]
    if any(other == f"{name}{QUICK_GELU}" for other in names):
        if file.experiment is None:
            raise UserError(
                f"{file.path}: has the shapes of '{name}', and does not say which GELU it was trained with: give "
                f"'{name}:{file.path}' (GELU, open_clip's) or '{name}{QUICK_GELU}:{file.path}' (QuickGELU, OpenAI's), "
                f"in a config model.name and model.pretrained"
            )
        if "quickgelu" in file.experiment.lower():
            name += QUICK_GELU
    return named_architecture(name).with_image_size(shape["image_size"])


def refuse_other_layouts(file: WeightFile) -> None:
    """Refuse the tensors of a single tower, a captioning model or an adapter, and transformers' tensor names.

    Raises:
        UserError: the message says what the file holds and what to give instead.
    """
    tensors = file.tensors
    if any(".lora_" in name or name.startswith("base_model.model.") for name in tensors):
        raise UserError(f"{file.path}: holds a LoRA adapter: merge it into its base model, and give the merged model")
    if any(name.startswith("text_decoder.") for name in tensors):
        raise UserError(f"{file.path}: holds a captioning model (CoCa), not a dual encoder")
    if any(name.startswith(("vision_model.", "text_model.")) for name in tensors):
        raise UserError(
            f"{file.path}: has transformers' tensor names: give the folder with its config.json, not the file"
        )
    if any(name.startswith("image_encoder.") for name in tensors):
        return  # Apple's MobileCLIP, whose tensors open_clip renames
    named = with_text_prefix(tensors)
    image, text = (any(name.startswith(part) for name in named) for part in ("visual.", "text."))
    if image != text:
        present, missing = ("image", "text") if image else ("text", "image")
        raise UserError(f"{file.path}: holds the {present} tower alone, without the {missing} tower of a dual encoder")
    if not image:
        shown = ", ".join(sorted(tensors)[:3])
        raise UserError(f"{file.path}: holds no dual encoder: its tensors are {shown}, ...")


def quick_gelu_of(script: ScriptedModule) -> bool:
    """Return whether a TorchScript archive's model uses OpenAI's approximation of GELU, by its class names."""
    return "QuickGELU" in script.classes or "GELU" not in script.classes


def _openai_architecture(file: WeightFile, shape: Sizes, names: list[str]) -> Architecture:
    """Return an archive's architecture; heads unknown to config and archive have width 64, as in OpenAI's loader."""
    assert file.script is not None
    quick_gelu = quick_gelu_of(file.script)
    if names:
        architecture = named_architecture(names[0]).with_image_size(shape["image_size"])
        return replace(architecture, quick_gelu=quick_gelu)
    stored = {"visual" in name: number for name, number in file.script.num_heads.items() if "attn" in name}
    text_heads = stored.get(False, shape["text_width"] // _OPENAI_HEAD_WIDTH)
    vision: dict[str, Any] = {"layers": shape["layers"], "width": shape["width"], "image_size": shape["image_size"]}
    image_heads = 1
    if shape["patch_size"] is not None:
        image_heads = stored.get(True, shape["width"] // _OPENAI_HEAD_WIDTH)
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
        f"give 'NAME:{file.path}' with an open_clip config's NAME, in a config model.name or its towers in addition to "
        f"model.pretrained, or a folder with its open_clip_config.json"
    )
