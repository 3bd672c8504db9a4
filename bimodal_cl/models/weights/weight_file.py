"""Read the tensors of a weights file of any origin, without running code that it may contain.

Formats: safetensors, ``torch.save`` (read with ``weights_only``) and TorchScript archives. Dictionaries and prefixes
that trainers add around the tensors (``state_dict``, ``module.``, ``_orig_mod.``) are removed.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bimodal_cl.errors import UserError, one_line
from bimodal_cl.models.weights.foreign_formats import COPY_AGAIN, refuse_foreign_format
from bimodal_cl.models.weights.torchscript import ScriptedModule, is_torchscript, read_torchscript

# Keys under which trainers keep a model's tensors, in the order in which they are tried.
_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
# OpenAI's archives store these settings as tensors; attn_mask is recomputed.
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask", "text.attn_mask")


@dataclass(frozen=True)
class WeightFile:
    """The content of a weights file.

    Args:
        path: the file.
        tensors: the tensors by their names in the model, with the file's dtypes.
        script: the content of the TorchScript archive, if the file is one.
        experiment: the run's name in an open_clip training checkpoint.
    """

    path: Path
    tensors: dict[str, Tensor] = field(repr=False)
    script: ScriptedModule | None = None
    experiment: str | None = None


def read_weight_file(path: Path) -> WeightFile:
    """Read a weights file on the CPU.

    Raises:
        UserError: the file is missing, empty or truncated, has another format, holds quantised weights, no tensors, or
            objects that only code could restore.
    """
    content = _read_content(path)
    script = content if isinstance(content, ScriptedModule) else None
    experiment = None
    if script is None:
        if isinstance(content, Mapping) and "epoch" in content and isinstance(content.get("name"), str):
            experiment = content["name"]
        content = _unwrap(content)
    tensors = dict(content) if script is None else script.tensors
    if not tensors:
        raise UserError(f"{path}: holds no tensors of a model")
    tensors = _strip_prefixes(path, tensors)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in _NOT_WEIGHTS}
    quantised = [name for name, tensor in tensors.items() if _is_quantised(name, tensor)]
    if quantised:
        kind = str(tensors[quantised[0]].dtype).removeprefix("torch.")
        raise UserError(
            f"{path}: quantised weights ('{quantised[0]}' is {kind}): take the model's float16 or float32 file"
        )
    return WeightFile(path, tensors, script, experiment)


def _read_content(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    refuse_foreign_format(path)
    with path.open("rb") as file:
        start = file.read(16)
    if path.suffix == ".safetensors" and start.startswith((b"PK", b"\x80")) and start[8:9] != b"{":
        raise UserError(f"{path}: was written by torch.save, not by safetensors: rename it to '{path.stem}.pt'")
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return _read_safetensors(path)
    if start.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile as error:
            raise UserError(f"{path}: damaged or cut short ({path.stat().st_size:,} bytes): {COPY_AGAIN}") from error
        if is_torchscript(names):
            return read_torchscript(path)
        if not any(name.endswith("data.pkl") for name in names):
            raise UserError(f"{path}: is a ZIP archive, not weights: unpack it, and give what is in it")
    elif not start.startswith(b"\x80"):
        raise UserError(f"{path}: is not a weights file: neither safetensors nor written by torch.save")
    return _read_pickled(path, mmap=start.startswith(b"PK"))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        size = path.stat().st_size
        raise UserError(
            f"{path}: damaged, cut short or not a safetensors file ({size:,} bytes; {one_line(error)}): {COPY_AGAIN}"
        ) from error


def _read_pickled(path: Path, mmap: bool) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_plain_values()):
            warnings.simplefilter("ignore")  # on the pickle's version
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        if name := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise UserError(
                f"{path}: holds Python objects ({name[1]}), which only code from the file could restore: "
                "save the model's state_dict alone with torch.save, and give that file"
            ) from error
        raise UserError(f"{path}: not written by torch.save, or damaged: only tensors can be read") from error
    except Exception as error:
        raise UserError(f"{path}: damaged or cut short ({_reason(error)}): {COPY_AGAIN}") from error


def _plain_values() -> list[Any]:
    """Return the types that trainers store in addition to tensors: numpy's scalars and arrays, argparse's namespaces.

    They hold counts, scores, random states and settings. numpy's restoring functions have had two module names.
    """
    kinds = [np.bool_, *np.sctypeDict.values()]
    numbers = {type(np.dtype(kind)) for kind in kinds if np.dtype(kind).kind in "biufc"}
    restore = ((np.array(0)[()].__reduce__()[0], "scalar"), (np.array(0).__reduce__()[0], "_reconstruct"))
    named = [(value, f"numpy.{core}.multiarray.{name}") for value, name in restore for core in ("core", "_core")]
    return [np.ndarray, np.dtype, *numbers, *named, argparse.Namespace]


def _reason(error: Exception) -> str:
    """Return the first sentence of torch's message, without its advice."""
    return re.split(r"(?<=\w)[.:;] |\n", one_line(error))[0][:120]


def _unwrap(content: Any) -> Mapping[str, Tensor]:
    """Return the state dict within a trainer's checkpoint; empty where there is none."""
    for _ in range(4):
        if not isinstance(content, Mapping):
            return {}
        inner = next((content[key] for key in _STATE_DICT_KEYS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _strip_prefixes(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes that wrappers (data parallelism, compilation, a trainer's module) add to tensor names.

    Tensors of anything else, such as a loss or a teacher, are left out with a warning that counts and names them.
    """
    tensors = {name.replace("_orig_mod.", "").replace("_fsdp_wrapped_module.", ""): t for name, t in tensors.items()}
    found = {match[1] for name in tensors if (match := re.match(r"((?:\w+\.)*?)(?:module\.)?visual\.", name))}
    prefix = min(found) if found else ""
    if not prefix:
        bare = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
        return {re.sub(r"^(visual|text)\.module\.", r"\1.", name): tensor for name, tensor in bare.items()}
    if len(found) > 1:
        raise UserError(f"{path}: holds several models ({', '.join(sorted(found))}): save the one to load alone")
    kept = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if left_out := sorted(name for name in tensors if not name.startswith(prefix)):
        shown = ", ".join(left_out[:3]) + (", ..." if len(left_out) > 3 else "")
        warnings.warn(f"{path}: {len(left_out)} tensors outside '{prefix}' are left out ({shown})", stacklevel=2)
    return _strip_prefixes(path, kept)


def _is_quantised(name: str, tensor: Tensor) -> bool:
    return tensor.dtype.itemsize == 1 and name.endswith("weight")
