"""Build a dual encoder from the ``model`` section of a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bimodal_cl.errors import UserError
from bimodal_cl.models.architecture import Architecture
from bimodal_cl.models.assemble import assemble
from bimodal_cl.models.dual_encoder import DualEncoder
from bimodal_cl.models.load import load_configured
from bimodal_cl.models.locate.open_clip_names import configured_architecture
from bimodal_cl.models.locate.package import resolve_package
from bimodal_cl.models.open_clip_config import inline_architecture
from bimodal_cl.models.tower_keys import check_image_size, refuse_unused_keys
from bimodal_cl.models.towers.build import timm_preprocess
from bimodal_cl.models.towers.timm_file import ORDER_KEY, PATH_KEY, TimmFile


def build_model(
    name: str | None = None,
    pretrained: str | None = None,
    embed_dim: int | None = None,
    vision: Mapping[str, Any] | None = None,
    text: Mapping[str, Any] | None = None,
    image_size: int | None = None,
    image_mean: Sequence[float] | None = None,
    image_std: Sequence[float] | None = None,
    image_interpolation: str | None = None,
    image_resize_mode: str | None = None,
) -> DualEncoder:
    """Build a dual encoder in training mode on the CPU.

    Give either `name`, or `embed_dim` with `vision` and `text`, or `pretrained` alone where its architecture is known.
    Random weights come from torch's global generator, so a seed reproduces the model.

    Args:
        name: an open_clip config, such as ``ViT-B-32`` or ``RN50``, also in OpenAI's spelling ``ViT-B/32``.
        pretrained: weights for the whole model: one of open_clip's tags for `name`, a weights file, or any name
            that :func:`bimodal_cl.models.load_model` takes. They determine the preprocessing, and whether towers use
            QuickGELU.
        embed_dim: width of the shared space, at least 1.
        vision: keys of open_clip's ``CLIPVisionCfg``; ``timm_model_name`` selects a timm tower, and
            ``timm_checkpoint_path`` a file with its weights (a path or ``package:NAME/PATH``), whose tensors
            ``timm_checkpoint_by_order: true`` pairs in order where the names do not fit.
        text: keys of open_clip's ``CLIPTextCfg``; ``hf_model_name`` selects a Hugging Face tower (a local folder, a
            folder of an installed package as ``package:NAME/PATH``, or a hub name; ``hf_model_pretrained: false`` for
            random weights; ``hf_tokenizer_name`` is the same by default).
        image_size: side of the images in pixels, to override the architecture's; pretrained position embeddings are
            resampled.
        image_mean, image_std, image_interpolation, image_resize_mode: the preprocessing, to override that of the
            weights. Without weights of the whole model it is that of timm's pretrained weights, where the image tower
            has them, and else open_clip's.

    Raises:
        UserError: a name, key, tag or file does not exist, keys contradict each other, or weights are neither on
            this machine nor available from the hub.
    """
    if image_size is not None:
        check_image_size(image_size, "model.image_size")
    vision, timm_file = _take_timm_file(vision, pretrained)
    inline = {"embed_dim": embed_dim, "vision": vision, "text": text}
    bare = name is None and all(value is None for value in inline.values())
    architecture = None if bare and pretrained is not None else _resolve_architecture(name, embed_dim, vision, text)
    if pretrained is None:
        assert architecture is not None
        encoder = assemble(architecture, None, image_size, timm_file=timm_file)
        if architecture.vision.get("timm_model_name") and architecture.vision.get("timm_model_pretrained"):
            encoder.set_preprocess(timm_preprocess(encoder.visual))
    else:
        encoder = load_configured(pretrained, architecture, image_size)
    overlay = {
        "mean": image_mean,
        "std": image_std,
        "interpolation": image_interpolation,
        "resize_mode": image_resize_mode,
    }
    encoder.set_preprocess(overlay, "model.image_")
    if timm_file is not None and image_mean is None and image_std is None:
        encoder.notes += _note_of_statistics(encoder)
    return encoder.train()


def _note_of_statistics(encoder: DualEncoder) -> list[str]:
    """Say so where timm's own weights of the architecture expect pixels of another mean or standard deviation."""
    used, stated = encoder.architecture.preprocess, timm_preprocess(encoder.visual)
    mean, std = (list(stated[key] or used[key]) for key in ("mean", "std"))
    if (mean, std) == (used["mean"], used["std"]):
        return []
    name = encoder.architecture.vision["timm_model_name"]
    return [
        f"pixels are normalised as by open_clip; timm's own weights of '{name}' expect model.image_mean {mean} and "
        f"model.image_std {std}: set both if the file's weights do, too"
    ]


def _take_timm_file(
    vision: Mapping[str, Any] | None, pretrained: str | None
) -> tuple[Mapping[str, Any] | None, TimmFile | None]:
    """Split the keys of the image tower from those of the file with its weights, which are no part of an architecture.

    Raises:
        UserError: a key without effect, or weights from two places.
    """
    path_key, order_key = "timm_checkpoint_path", "timm_checkpoint_by_order"
    if vision is None or not vision.keys() & {path_key, order_key}:
        return vision, None
    rest = {key: value for key, value in vision.items() if key not in (path_key, order_key)}
    given, by_order = vision.get(path_key), bool(vision.get(order_key))
    if given is None:
        if by_order:
            raise UserError(f"{ORDER_KEY}=true has no effect without {PATH_KEY}, the file whose tensors it pairs")
        return rest, None
    if not vision.get("timm_model_name"):
        raise UserError(f"{PATH_KEY} has no effect on a tower without timm_model_name: leave it out")
    for key, value in (
        ("model.pretrained", pretrained),
        ("model.vision.timm_model_pretrained", vision.get("timm_model_pretrained")),
    ):
        if value:
            shown = "true" if value is True else value
            raise UserError(
                f"{PATH_KEY} and {key}={shown} both give the image tower its weights: leave one of them out"
            )
    return rest, TimmFile(Path(resolve_package(given, PATH_KEY)), by_order)


def _resolve_architecture(
    name: str | None, embed_dim: int | None, vision: Mapping[str, Any] | None, text: Mapping[str, Any] | None
) -> Architecture:
    inline = {"embed_dim": embed_dim, "vision": vision, "text": text}
    if name is not None:
        for key, value in inline.items():
            if value is not None:
                raise UserError(f"model.{key} cannot be combined with model.name '{name}': its config has its own")
        return configured_architecture(name)
    if embed_dim is None or vision is None or text is None:
        missing = [key for key, value in inline.items() if value is None]
        raise UserError(f"a model needs model.name, or model.{' and model.'.join(missing)} as well")
    architecture = inline_architecture(embed_dim, vision, text)
    for key in ("hf_model_name", "hf_tokenizer_name"):
        if architecture.text.get(key):
            architecture.text[key] = resolve_package(architecture.text[key], f"model.text.{key}")
    refuse_unused_keys(architecture.vision, architecture.text)
    return architecture
