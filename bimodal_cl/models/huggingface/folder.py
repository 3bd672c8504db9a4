"""Load a Hugging Face folder of an image-text model, by the ``model_type`` in its ``config.json``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.json_files import read_mapping
from bimodal_cl.models.dual_encoder import DualEncoder
from bimodal_cl.models.huggingface.clip import load_huggingface_clip
from bimodal_cl.models.huggingface.siglip import load_huggingface_siglip

_LOADERS: dict[str, Callable[[Path, int | None], DualEncoder]] = {
    "clip": load_huggingface_clip,
    "siglip": load_huggingface_siglip,
}


def load_huggingface(folder: Path, image_size: int | None = None) -> DualEncoder:
    """Load a folder written by ``save_pretrained`` of a CLIP or SigLIP model, on the CPU.

    The folder's preprocessing and tokenizer are used, and features equal those of transformers up to rounding. A
    SigLIP 2 model of fixed resolution has the type ``siglip``.

    Args:
        folder: contains ``config.json``, weights, tokenizer and preprocessing (``preprocessor_config.json`` or
            ``processor_config.json``).
        image_size: side of the images in pixels, to override the model's; position embeddings are resampled.

    Raises:
        UserError: another kind of model, an option that is not supported, or damaged files.
    """
    path = folder / "config.json"
    family = str(read_mapping(path).get("model_type"))
    if family.startswith("siglip2"):
        raise UserError(
            f"{path}: model_type '{family}' is NaFlex, whose images keep their aspect ratio; only square images are "
            "supported: take a SigLIP 2 of fixed resolution, such as google/siglip2-base-patch16-224"
        )
    if family not in _LOADERS:
        near = did_you_mean(family, _LOADERS) or f"; known are {', '.join(_LOADERS)}"
        raise UserError(f"{path}: model_type '{family}' is not a supported image-text model{near}")
    return _LOADERS[family](folder, image_size)
