"""A Hugging Face folder of an image-text model, of whatever kind its ``model_type`` says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.models.dual_encoder import DualEncoder
from bimodal_cl.models.huggingface.clip import load_huggingface_clip
from bimodal_cl.models.huggingface.siglip import load_huggingface_siglip
from bimodal_cl.models.json_files import read_json

_LOADERS: dict[str, Callable[[Path, int | None], DualEncoder]] = {
    "clip": load_huggingface_clip,
    "siglip": load_huggingface_siglip,
}


def load_huggingface(folder: Path, image_size: int | None = None) -> DualEncoder:
    """Load a folder that ``save_pretrained`` of a CLIP or SigLIP model wrote, on the CPU.

    Features equal transformers' own to float error, with the folder's own preprocessing and tokenizer. SigLIP 2 at a
    fixed resolution is a ``siglip``.

    Args:
        folder: has ``config.json``, weights, tokenizer and preprocessing (``preprocessor_config.json`` or
            ``processor_config.json``).
        image_size: side of the images in pixels, where it is not to be the model's; position embeddings are resampled.

    Raises:
        UserError: another kind of model, something in it that we could not do the same way, or damaged files.
    """
    path = folder / "config.json"
    family = str(read_json(path).get("model_type"))
    if family.startswith("siglip2"):
        raise UserError(
            f"{path}: model_type '{family}' is NaFlex, whose images keep their aspect ratio, and here all are square: "
            "take a SigLIP 2 of fixed resolution, such as google/siglip2-base-patch16-224"
        )
    if family not in _LOADERS:
        near = did_you_mean(family, _LOADERS) or f"; known are {', '.join(_LOADERS)}"
        raise UserError(f"{path}: model_type '{family}' is no image-text model that can be loaded{near}")
    return _LOADERS[family](folder, image_size)
