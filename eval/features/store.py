"""Keep features in a folder: one file for each model and data, named by a hash of what the features depend on."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimodal_cl.cli.progress import note
from bimodal_cl.errors import UserError, one_line
from bimodal_cl.files.atomic import open_atomically

if TYPE_CHECKING:
    from torch import Tensor

AUTOMATIC = "auto"
_CHECKSUM, _BESIDE = "sha256", "beside"


@dataclass(frozen=True)
class Entry:
    """Features of some data.

    Attributes:
        tensors: by name.
        beside: what belongs to them, as JSON can hold it.
    """

    tensors: dict[str, Tensor]
    beside: dict[str, Any] = field(default_factory=dict)


class FeatureStore:
    """A folder of features, which several processes may use at once; deleting any of its files is safe.

    Args:
        given: the folder, or ``auto``: ``$XDG_CACHE_HOME/bimodal_cl/features``, by default below ``~/.cache``.

    Raises:
        UserError: the folder cannot be made or written to.
    """

    def __init__(self, given: str) -> None:
        self.folder = _automatic_folder() if given == AUTOMATIC else Path(given).expanduser()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--cache {self.folder}: cannot be made: {error.strerror}") from None
        if not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
            raise UserError(f"--cache {self.folder}: no permission to read and write there")

    def path(self, key: str) -> Path:
        """Return the file of an entry, whether or not it exists."""
        return self.folder / f"{key}.safetensors"

    def load(self, key: str) -> Entry | None:
        """Return an entry; None where there is none, or a damaged one, which is noted on stderr."""
        from safetensors import SafetensorError, safe_open

        path = self.path(key)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            if metadata.get(_CHECKSUM) != _hash(tensors, metadata[_BESIDE]):
                raise ValueError("its content differs from its checksum")
            return Entry(tensors, json.loads(metadata[_BESIDE]))
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            note(f"{path}: damaged ({one_line(error)}): the features are encoded again")
            return None

    def save(self, key: str, entry: Entry) -> None:
        """Write an entry, whole or not at all; a full disk is noted on stderr and does no harm."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        tensors = {name: tensor.contiguous().cpu() for name, tensor in entry.tensors.items()}
        beside = json.dumps(entry.beside, ensure_ascii=False)
        metadata = {_CHECKSUM: _hash(tensors, beside), _BESIDE: beside}
        try:
            with open_atomically(self.path(key)) as file:
                permissions, partial = os.fstat(file.fileno()).st_mode, Path(file.name)
                save_file(tensors, partial, metadata)  # without a copy in memory; some versions replace the file
                partial.chmod(permissions)
                with partial.open("rb") as written:
                    os.fsync(written.fileno())
        except (OSError, SafetensorError) as error:
            reason = error.strerror if isinstance(error, OSError) else one_line(error)
            note(f"the features are not kept: {self.path(key)}: {reason}")


def _automatic_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".cache") / "bimodal_cl" / "features"


def _hash(tensors: dict[str, Tensor], beside: str) -> str:
    found = hashlib.sha256(beside.encode())
    for name in sorted(tensors):
        found.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}".encode())
        found.update(tensors[name].numpy().data)
    return found.hexdigest()
