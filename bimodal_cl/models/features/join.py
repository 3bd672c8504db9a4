"""Join heads to their towers: the tensors of one ordinary dual encoder.

The heads were trained on ``(x - mean) / std`` of the towers' features ``x``. In the joined model there is no such step;
it is folded into what comes before or after, exactly but for rounding:

- **Image.** The first layer of the head, ``W (x - mean) / std + b``, is ``W' x + b'`` with ``W' = W / std`` and
  ``b' = b - W' mean``.
- **Text.** The tower pools the outputs ``n * w + c`` of its last layer norm, by a mean, a maximum or the first token.
  All three commute with an increasing affine map, so ``w' = w / std`` and ``c' = (c - mean) / std`` standardise the
  pooled feature. A tower without such a norm is trained on features as they are.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from bimodal_cl.errors import UserError, one_line
from bimodal_cl.files.checksums import hash_files
from bimodal_cl.models.features.heads import TowersReference, is_heads
from bimodal_cl.models.weights.file_names import HEADS_FILE, TOKENIZER_FOLDER, WEIGHTS_FILE

# The first layers of the heads of bimodal_cl.models.towers.heads.
_FIRST_LAYERS = ("visual.head.proj", "visual.head.mlp.fc1", "visual.head.residual.linear", "visual.head.residual.fc1")
_NOT_OF_TOWERS = ("visual.head.", "text.proj.", "logit_")


def find_towers(folder: Path) -> Path:
    """Return the folder of the towers of saved heads.

    Raises:
        UserError: they are not there any more.
    """
    reference = TowersReference.read(folder / HEADS_FILE)
    if not (Path(reference.folder) / WEIGHTS_FILE).is_file():
        raise UserError(
            f"{folder}: holds the heads alone, and their towers are not in {reference.folder}: put the folder back, or "
            f"write its new place into {folder / HEADS_FILE}"
        )
    return Path(reference.folder)


def tokenizer_of(folder: Path) -> Path:
    """Return the folder of a saved model's tokenizer, which that of heads is beside their towers."""
    return (find_towers(folder) if is_heads(folder) else folder) / TOKENIZER_FOLDER


def join_tensors(folder: Path, weights: str = WEIGHTS_FILE) -> dict[str, Tensor]:
    """Return the tensors of the joined model, by name.

    Args:
        folder: the heads' folder.
        weights: name of the file of weights in it.

    Raises:
        UserError: a file is missing or damaged, or the towers are not those of the heads.
    """
    towers_folder, reference = find_towers(folder), TowersReference.read(folder / HEADS_FILE)
    if hash_files(towers_folder / WEIGHTS_FILE) != reference.sha256:
        raise UserError(f"{folder}: its heads were trained on other towers than those in {towers_folder} now")
    towers, heads, text_norm = read_towers(towers_folder), _read(folder / weights), reference.text_norm
    mean, std = (heads.pop(f"visual.standardize.{name}").double() for name in ("mean", "std"))
    for layer in _FIRST_LAYERS:
        if (matrix := heads.get(f"{layer}.weight")) is not None:
            folded = matrix.double() / std
            heads[f"{layer}.weight"] = folded.to(matrix.dtype)
            heads[f"{layer}.bias"] = (heads[f"{layer}.bias"].double() - folded @ mean).to(matrix.dtype)
    mean, std = (heads.pop(f"text.standardize.{name}").double() for name in ("mean", "std"))
    if text_norm:
        scale, shift = towers[f"{text_norm}.weight"], towers[f"{text_norm}.bias"]
        towers[f"{text_norm}.weight"] = (scale.double() / std).to(scale.dtype)
        towers[f"{text_norm}.bias"] = ((shift.double() - mean) / std).to(shift.dtype)
    return {**towers, **heads}


def read_towers(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of saved towers, by name, without those of heads and temperature.

    Raises:
        UserError: the file is missing or damaged.
    """
    tensors = _read(folder / WEIGHTS_FILE)
    return {name: each for name, each in tensors.items() if not name.startswith(_NOT_OF_TOWERS)}


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own types
        raise UserError(f"{path}: cannot be read ({one_line(error)})") from None
