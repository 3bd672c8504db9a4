"""Save and load a model's state dict: our own checkpoints exactly, pretrained weights after conversion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bimodal_cl.errors import UserError, one_line
from bimodal_cl.models.weights.shapes import matching_names, with_text_prefix


@dataclass(frozen=True)
class Pretrained:
    """Weights for a whole model, read before the model is built.

    Args:
        path: the file.
        tensors: its tensors; None for big_vision's numpy files, which open_clip reads itself.
        image_size: side of the images that the model was trained on, where it is known.
        quick_gelu: whether it was trained with OpenAI's approximation of GELU; None: as in the architecture.
        preprocess: the preprocessing that it was trained with, as far as it is known.
    """

    path: Path
    tensors: dict[str, Tensor] | None = field(repr=False)
    image_size: int | None = None
    quick_gelu: bool | None = None
    preprocess: dict[str, Any] = field(default_factory=dict)

    @property
    def logit_bias(self) -> float | None:
        """The logit bias of a model of any architecture that was trained with SigLIP's loss, else None."""
        bias = (self.tensors or {}).get("logit_bias")
        return None if bias is None or bias.numel() != 1 else float(bias)


def load_pretrained(module: nn.Module, pretrained: Pretrained, what: str) -> None:
    """Load weights for a whole model in OpenAI's, open_clip's or our layout, converted to the module's dtype.

    Position embeddings of another size are resampled by open_clip's functions.

    Args:
        module: the model.
        pretrained: its weights.
        what: the model, for messages.

    Raises:
        UserError: the tensors do not match the model; the message names some of them, and the open_clip config of the
            same shapes, if there is one.
    """
    from open_clip.convert import convert_state_dict, load_big_vision_weights
    from open_clip.model import resize_pos_embed, resize_text_pos_embed

    if pretrained.tensors is None:
        try:
            load_big_vision_weights(module, str(pretrained.path))
        except Exception as error:
            raise UserError(f"{pretrained.path}: not weights of {what} ({one_line(error)})") from error
        return
    tensors = dict(pretrained.tensors)
    try:
        tensors = with_text_prefix(convert_state_dict(module, tensors))
        _adapt(module, tensors)
        resize_pos_embed(tensors, module)
        resize_text_pos_embed(tensors, module)
    except Exception:
        pass
    _refuse_other_model(module, tensors, pretrained, what)
    module.load_state_dict(tensors)


def _adapt(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Reconcile differences between open_clip's versions: one-dimensional scalars, a missing bias, position ids."""
    own = module.state_dict()
    for name in ("logit_scale", "logit_bias"):
        if name in own and name in tensors and tensors[name].numel() == 1:
            tensors[name] = tensors[name].reshape(own[name].shape)
    if "logit_bias" in own and "logit_bias" not in tensors:
        tensors["logit_bias"] = torch.zeros_like(own["logit_bias"])
    if "logit_scale" in own and "logit_scale" not in tensors:
        tensors["logit_scale"] = own["logit_scale"]
    for name in ("text.transformer.embeddings.position_ids",):
        if name not in own:
            tensors.pop(name, None)


def _refuse_other_model(module: nn.Module, tensors: dict[str, Tensor], pretrained: Pretrained, what: str) -> None:
    own = module.state_dict()
    other = [name for name in own if name in tensors and tensors[name].shape != own[name].shape]
    if own.keys() == tensors.keys() and not other:
        return
    names = [name for name in matching_names(pretrained.tensors or {}) if f"'{name}'" not in what]
    hint = f"; they have the shapes of '{names[0]}'" if names else ""
    _refuse_other_names(pretrained.path, own.keys() - tensors.keys(), tensors.keys() - own.keys(), what, hint)
    if other:
        first = other[0]
        raise UserError(
            f"{pretrained.path}: the tensors do not match {what}: {len(other)} of another shape ('{first}' is "
            f"{list(tensors[first].shape)} and not {list(own[first].shape)}){hint}"
        )


def save_weights(module: nn.Module, path: Path, instead: Mapping[str, Tensor] | None = None) -> None:
    """Write a module's tensors as safetensors; tied weights are written once, under their first name.

    Args:
        module: the model.
        path: the file.
        instead: tensors to write in place of the module's own, by name.
    """
    from safetensors.torch import save_file

    named = {**_unique_tensors(module), **(instead or {})}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}
    save_file(tensors, path, metadata={"format": "pt"})


def load_weights(module: nn.Module, path: Path) -> None:
    """Load what :func:`save_weights` wrote, in place and without any conversion.

    Raises:
        UserError: as :func:`read_weights`.
    """
    tensors = read_weights(module, path)
    with torch.no_grad():
        for name, tensor in _unique_tensors(module).items():
            tensor.copy_(tensors[name])


def read_weights(module: nn.Module, path: Path) -> dict[str, Tensor]:
    """Read what :func:`save_weights` wrote of such a module, on the CPU; the module stays as it is.

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
        raise UserError(f"{path}: damaged or not a safetensors file ({one_line(error)})") from error
    expected = _unique_tensors(module)
    _refuse_other_names(path, expected.keys() - tensors.keys(), tensors.keys() - expected.keys())
    for name, tensor in expected.items():
        if tensors[name].shape != tensor.shape:
            raise UserError(f"{path}: '{name}' has shape {list(tensors[name].shape)}, not {list(tensor.shape)}")
    return tensors


def _unique_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the module's persistent tensors by name; of tied weights, only the first name."""
    unique: dict[str, Tensor] = {}
    seen: set[tuple[Any, ...]] = set()
    for name, tensor in module.state_dict().items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() == 0 or place not in seen:
            unique[name] = tensor
            seen.add(place)
    return unique


def _refuse_other_names(
    path: Path, missing: Iterable[str], unexpected: Iterable[str], what: str = "this model", hint: str = ""
) -> None:
    problems = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in (("missing", sorted(missing)), ("unexpected", sorted(unexpected)))
        if names
    ]
    if problems:
        raise UserError(f"{path}: the tensors do not match {what}: {' and '.join(problems)}{hint}")
