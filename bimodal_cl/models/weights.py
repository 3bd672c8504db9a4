"""Weights on disk: our own safetensors files, and whole-model weights that open_clip knows how to read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bimodal_cl.errors import UserError, did_you_mean, one_line
from bimodal_cl.models.architecture import Architecture

WEIGHTS_FILE, ARCHITECTURE_FILE, TOKENIZER_FOLDER = "model.safetensors", "model.json", "tokenizer"
_FILE_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".npz", ".npy")


@dataclass(frozen=True)
class Pretrained:
    """Weights for a whole model, found before anything is built.

    Args:
        path: the file.
        image_size: the size of the images it was trained on, where that is known.
        quick_gelu: whether it was trained with OpenAI's approximation of GELU; None: as the architecture says.
        preprocess: the preprocessing it was trained with, as far as it is known.
    """

    path: Path
    image_size: int | None = None
    quick_gelu: bool | None = None
    preprocess: dict[str, Any] = field(default_factory=dict)


def find_pretrained(name: str | None, pretrained: str) -> Pretrained:
    """Find whole-model weights: a local file or checkpoint folder, else a tag of the open_clip config `name`.

    Raises:
        UserError: neither, or the tag's weights are not in the cache and cannot be fetched.
    """
    import open_clip

    if name is not None and open_clip.is_pretrained_cfg(name, pretrained):
        return _fetch_tag(name, pretrained)
    path = Path(pretrained)
    if path.is_dir():
        for file in (path / WEIGHTS_FILE, path / "checkpoints" / "latest" / WEIGHTS_FILE):
            if file.is_file():
                architecture = Architecture.read(file.with_name(ARCHITECTURE_FILE))
                return Pretrained(
                    file, architecture.image_size, architecture.quick_gelu, preprocess=architecture.preprocess
                )
        raise UserError(f"model.pretrained '{pretrained}': no {WEIGHTS_FILE} in this folder, nor a checkpoint of a run")
    if path.is_file():
        return Pretrained(path)
    if path.suffix in _FILE_ENDINGS or len(path.parts) > 1:
        raise UserError(f"model.pretrained '{pretrained}': no such file or folder")
    if name is None:
        raise UserError(f"model.pretrained '{pretrained}': no such file, and tags are known only for a model.name")
    tags = open_clip.list_pretrained_tags_by_model(name)
    near = did_you_mean(pretrained, tags) or "; it has none"
    raise UserError(f"model.pretrained '{pretrained}' is no file and no tag of '{name}'{near}")


def _fetch_tag(name: str, tag: str) -> Pretrained:
    import open_clip

    config = open_clip.get_pretrained_cfg(name, tag)
    try:
        path = open_clip.download_pretrained(config)
    except Exception as error:
        raise UserError(
            f"weights '{name}/{tag}' are not in the cache and cannot be fetched ({one_line(error)})"
        ) from error
    return Pretrained(Path(path), quick_gelu=bool(config.get("quick_gelu", False)), preprocess=dict(config))


def load_pretrained(module: nn.Module, pretrained: Pretrained) -> None:
    """Load whole-model weights in any form that open_clip reads; position embeddings are resampled where they must be.

    Raises:
        UserError: the file is damaged, or its tensors are not this model's; the message names some of them.
    """
    import open_clip

    try:
        mismatch = open_clip.load_checkpoint(module, str(pretrained.path), strict=False)
    except Exception as error:
        raise UserError(f"{pretrained.path}: no weights of this model ({one_line(error)})") from error
    if mismatch:
        _refuse_other_names(pretrained.path, mismatch.missing_keys, mismatch.unexpected_keys)


def save_weights(module: nn.Module, path: Path) -> None:
    """Write a module's tensors as safetensors; a tensor with several names (tied weights) is written once."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _unique_tensors(module).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def load_weights(module: nn.Module, path: Path) -> None:
    """Load what :func:`save_weights` wrote, in place and exactly.

    Raises:
        UserError: the file is missing or damaged, or a tensor is missing, unexpected or of another shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged or no safetensors file ({one_line(error)})") from error
    expected = _unique_tensors(module)
    _refuse_other_names(path, expected.keys() - tensors.keys(), tensors.keys() - expected.keys())
    for name, tensor in expected.items():
        if tensors[name].shape != tensor.shape:
            raise UserError(f"{path}: '{name}' has shape {list(tensors[name].shape)}, not {list(tensor.shape)}")
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(tensors[name])


def _unique_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the module's persistent tensors by name; of tied ones only the first name."""
    unique: dict[str, Tensor] = {}
    seen: set[tuple[Any, ...]] = set()
    for name, tensor in module.state_dict().items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() == 0 or place not in seen:
            unique[name] = tensor
            seen.add(place)
    return unique


def _refuse_other_names(path: Path, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("missing", sorted(missing)), ("unexpected", sorted(unexpected)))
        if names
    ]
    if problems:
        raise UserError(f"{path}: the tensors are not this model's: {' and '.join(problems)}")
