"""One door for every trained model: a run, a checkpoint, an export, an open_clip tag, a Hugging Face CLIP folder."""

from __future__ import annotations

import difflib
from pathlib import Path

import torch

from bimodal_cl.errors import UserError
from bimodal_cl.models.architecture import architecture_from_open_clip, named_architecture, read_json
from bimodal_cl.models.build import assemble, build_from_folder
from bimodal_cl.models.dual_encoder import DualEncoder
from bimodal_cl.models.huggingface import load_huggingface
from bimodal_cl.models.weights import ARCHITECTURE_FILE, Pretrained, find_pretrained

OPEN_CLIP_CONFIG = "open_clip_config.json"
_OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)


def load_model(path_or_tag: str | Path, device: str | torch.device = "cpu") -> DualEncoder:
    """Load a trained model, in evaluation mode.

    Args:
        path_or_tag: a folder: a run (its latest checkpoint), a checkpoint, an export in open_clip's form, or a Hugging
            Face ``CLIPModel``; or open_clip's ``NAME/TAG``, such as ``ViT-B-32/laion2b_s34b_b79k``.
        device: where its weights go.

    Raises:
        UserError: no such folder and no such pair, a folder of another kind, or damaged files.
    """
    path = Path(path_or_tag)
    if path.is_dir():
        encoder = _load_folder(path)
    elif path.exists():
        raise UserError(f"model '{path_or_tag}' is a file: give the folder it is in")
    else:
        encoder = _load_tag(path)
    return encoder.to(device).eval()


def _load_folder(folder: Path) -> DualEncoder:
    if (folder / ARCHITECTURE_FILE).is_file():
        return build_from_folder(folder)
    if (folder / "checkpoints").is_dir():
        latest = folder / "checkpoints" / "latest"
        if not latest.is_dir():
            raise UserError(f"run '{folder}' has no checkpoint yet: no {latest}")
        return build_from_folder(latest)
    if (folder / OPEN_CLIP_CONFIG).is_file():
        return _load_open_clip_folder(folder)
    if (folder / "config.json").is_file():
        return load_huggingface(folder)
    raise UserError(
        f"folder '{folder}' holds no model: neither {ARCHITECTURE_FILE} (a checkpoint), checkpoints/ (a run), "
        f"{OPEN_CLIP_CONFIG} (an export) nor config.json (a Hugging Face CLIP model)"
    )


def _load_open_clip_folder(folder: Path) -> DualEncoder:
    config = read_json(folder / OPEN_CLIP_CONFIG)
    if "model_cfg" not in config:
        raise UserError(f"{folder / OPEN_CLIP_CONFIG}: key 'model_cfg' is missing")
    where = f"{folder / OPEN_CLIP_CONFIG}: "
    architecture = architecture_from_open_clip(config["model_cfg"], None, config.get("preprocess_cfg"), where)
    for file in _OPEN_CLIP_WEIGHTS:
        if (folder / file).is_file():
            has_tokenizer = (folder / "tokenizer_config.json").is_file()
            return assemble(architecture, Pretrained(folder / file), tokenizer_folder=folder if has_tokenizer else None)
    raise UserError(f"folder '{folder}' has no weights: none of {', '.join(_OPEN_CLIP_WEIGHTS)}")


def _load_tag(path: Path) -> DualEncoder:
    import open_clip

    tag = path.as_posix()
    name, _, pretrained = tag.partition("/")
    if name not in open_clip.list_models():
        known = [entry.as_posix() for entry in path.parent.glob("*") if entry.is_dir()]
        known += ["/".join(pair) for pair in open_clip.list_pretrained()]
        near = difflib.get_close_matches(tag, known, n=1, cutoff=0.6)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise UserError(f"model '{tag}' is no folder and no open_clip NAME/TAG{hint}")
    if not pretrained:
        tags = open_clip.list_pretrained_tags_by_model(name)
        shown = f", such as {name}/{tags[0]}" if tags else " of a pretrained model"
        raise UserError(f"model '{tag}' is no folder; an open_clip model is loaded by NAME/TAG{shown}")
    return assemble(named_architecture(name), find_pretrained(name, pretrained))
