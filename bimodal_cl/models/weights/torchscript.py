"""Read the tensors of a TorchScript archive without compiling or running its code.

``torch.jit.load`` compiles the archive's code and runs the parts of it that restore objects. Here a restricted
unpickler reads the modules: it accepts tensors and containers only, replaces every class of the archive by an inert
object, and never opens the folder ``code/``.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bimodal_cl.errors import UserError, one_line

_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class ScriptedModule:
    """The content of a TorchScript archive.

    Args:
        tensors: the tensors by their names in ``state_dict``.
        classes: the class names of its modules without their package, such as ``QuickGELU``.
        num_heads: attention heads by module name, where the archive keeps them (scripted, not traced models).
    """

    tensors: dict[str, Tensor]
    classes: frozenset[str]
    num_heads: dict[str, int]


class _Module:
    """An inert replacement for an object of any class of the archive; it only keeps the attributes."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def is_torchscript(names: list[str]) -> bool:
    """Return whether a zip file with members of these names is a TorchScript archive, and not from ``torch.save``."""
    return any(name.endswith("/constants.pkl") or "/code/" in name for name in names)


def read_torchscript(path: Path) -> ScriptedModule:
    """Read a TorchScript archive's tensors.

    Raises:
        UserError: the file is damaged, or holds something that is neither a module nor a tensor.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = next(name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl"))
            reader = _Reader(archive, pickled)
            root = reader.load()
            if not isinstance(root, _Module):
                raise pickle.UnpicklingError(f"a {type(root).__name__} in place of a module")
            values = dict(_walk(root))
    except (pickle.UnpicklingError, zipfile.BadZipFile, StopIteration, KeyError, EOFError, RuntimeError) as error:
        raise UserError(f"{path}: a TorchScript archive that cannot be read ({one_line(error)})") from error
    return ScriptedModule(
        tensors={name: value for name, value in values.items() if isinstance(value, Tensor)},
        classes=frozenset(reader.classes),
        num_heads={
            name.removesuffix(".num_heads"): value
            for name, value in values.items()
            if name.endswith(".num_heads") and isinstance(value, int)
        },
    )


class _Reader(pickle.Unpickler):
    """Unpickle tensors, containers and inert modules; any other name in the pickle raises an error."""

    def __init__(self, archive: zipfile.ZipFile, pickled: str) -> None:
        super().__init__(io.BytesIO(archive.read(pickled)))
        self.classes: set[str] = set()
        self._archive = archive
        self._folder = pickled.removesuffix("data.pkl") + "data/"
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return the safe replacement for a name in the pickle; nothing is ever imported."""
        if module.split(".")[0] == "__torch__":
            self.classes.add(name)
            return _Module
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        known: dict[str, Any] = {
            "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
            "collections.OrderedDict": OrderedDict,
            "torch.jit._pickle.restore_type_tag": lambda value, tag: value,
            **{f"torch.jit._pickle.build_{kind}list": list for kind in ("int", "double", "bool", "tensor")},
        }
        if f"{module}.{name}" not in known:
            raise pickle.UnpicklingError(f"{module}.{name} in place of a tensor")
        return known[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> Tensor:
        """Return a storage as a flat tensor."""
        _, dtype, key, *_ = pid
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._folder}{key}"))
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _walk(module: _Module, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a module and of those within it, by dotted name."""
    for name, value in (module.state if isinstance(module.state, dict) else {}).items():
        if isinstance(value, _Module):
            yield from _walk(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
