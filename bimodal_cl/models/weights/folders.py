"""Which kind of model a folder holds, and why it cannot be used where it holds none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.models.architecture import read_json
from bimodal_cl.models.hub import OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS, TRANSFORMERS_WEIGHTS
from bimodal_cl.models.weights.files import refuse_wrong_file
from bimodal_cl.models.weights.tensors import ARCHITECTURE_FILE, WEIGHTS_FILE

WEIGHT_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz", ".npy", ".onnx", ".gguf", ".h5", ".msgpack")
# open_clip takes any of these endings beside its config; endings without a name above come last.
_OTHER_WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")
_FOREIGN_FORMATS = {".gguf": "GGUF", ".onnx": "ONNX", ".h5": "TensorFlow", ".msgpack": "Flax", ".tflite": "TensorFlow"}
_TIMM_KEY = "pretrained_cfg"
_IMAGE_FAMILIES = re.compile(r"vision|vit|dino|deit|beit|swin|convnext|resnet|mobilenet|efficientnet|image", re.I)
_DUAL_FAMILIES = re.compile(r"clip|siglip|align|dual|blip|flava|x_clip|groupvit|owl|altclip", re.I)


@dataclass(frozen=True)
class FoundFolder:
    """A model in a folder: ``checkpoint``, ``open_clip`` or ``huggingface``, and its file of weights."""

    kind: Literal["checkpoint", "open_clip", "huggingface"]
    name: str
    folder: Path
    weights: Path
    run: Path | None = None


def find_in_folder(folder: Path, what: str) -> FoundFolder:
    """Find the model of a folder: a run (its newest checkpoint), a checkpoint, an export, a Hugging Face model.

    Raises:
        UserError: it holds none; the message begins with `what` and says what is there instead.
    """
    if (folder / ARCHITECTURE_FILE).is_file():
        return _checkpoint(folder, what)
    for run in (folder, folder.parent):
        if (run / "checkpoints").is_dir() and (run == folder or folder.name == "checkpoints"):
            return _checkpoint(_newest_checkpoint(run, what), what, run)
    for reader in (_open_clip, _huggingface):
        if (found := reader(folder)) is not None:
            return found
    raise UserError(f"{what}: {_why_not(folder)}")


def find_in_file(path: Path, what: str) -> FoundFolder | None:
    """Find the model whose file this is, by what lies beside it; None for a file of weights alone.

    Raises:
        UserError: the file belongs to a run, and is not its model.
    """
    folder = path.parent
    if path.name == WEIGHTS_FILE and (folder / ARCHITECTURE_FILE).is_file():
        return _checkpoint(folder, what)
    if path.name in OPEN_CLIP_WEIGHTS and (folder / OPEN_CLIP_CONFIG).is_file():
        return FoundFolder("open_clip", folder.resolve().name, folder, path)
    if path.name in TRANSFORMERS_WEIGHTS and (folder / "config.json").is_file():
        return _huggingface(folder)
    if path.suffix in (".json", ".yaml", ".yml"):
        raise UserError(f"{what} is a file of settings, not of weights: give the folder it is in")
    if path.name in ("optimizer.pt", "loss.safetensors") and (folder / ARCHITECTURE_FILE).is_file():
        raise UserError(f"{what} holds no model: give the folder it is in")
    return None


def _checkpoint(folder: Path, what: str, run: Path | None = None) -> FoundFolder:
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise UserError(f"{what}: '{WEIGHTS_FILE}' is missing in {folder}")
    refuse_wrong_file(weights)
    named = folder.absolute().parent.parent if folder.absolute().parent.name == "checkpoints" else folder
    return FoundFolder("checkpoint", named.resolve().name, folder, weights, run)


def _newest_checkpoint(run: Path, what: str) -> Path:
    """The folder ``checkpoints/latest`` points to: a link that moves on while a run trains, so the very folder.

    Copies without links have none: the newest whole checkpoint then.
    """
    latest = run / "checkpoints" / "latest"
    if latest.is_dir():
        beside = latest.with_name(latest.resolve().name)
        return beside if beside.is_dir() else latest.resolve()
    whole = sorted(path for path in latest.parent.glob("step_*") if (path / ARCHITECTURE_FILE).is_file())
    whole = [path for path in whole if not path.name.endswith(".partial")]
    if not whole and (theirs := sorted(latest.parent.glob("*.pt"), key=lambda path: path.stat().st_mtime)):
        raise UserError(
            f"{what} is a run of open_clip's, whose checkpoints do not say their architecture: give it with the file, "
            f"as in '{_open_clip_architecture(run)}:{theirs[-1]}'"
        )
    if not whole:
        raise UserError(f"{what}: the run has no checkpoint yet: no {latest}")
    return whole[-1]


def _open_clip_architecture(run: Path) -> str:
    """The architecture that open_clip's training notes in ``params.txt``; ``NAME`` where it does not."""
    params = run / "params.txt"
    text = params.read_text("utf-8", errors="replace") if params.is_file() else ""
    model = re.search(r"^model: (\S+)$", text, re.MULTILINE)
    return model[1] if model else "NAME"


def _open_clip(folder: Path) -> FoundFolder | None:
    config = folder / OPEN_CLIP_CONFIG
    if not config.is_file():
        return None
    weights = next((folder / name for name in OPEN_CLIP_WEIGHTS if (folder / name).is_file()), None)
    if weights is None and (found := _huggingface(folder)) is not None:
        return found  # a repository with both forms, of which only transformers' was fetched
    if weights is None:
        others = [path for ending in _OTHER_WEIGHTS for path in sorted(folder.glob(f"*{ending}"))]
        if len(others) > 1:
            shown = ", ".join(path.name for path in others[:4])
            raise UserError(
                f"folder '{folder}' has several files of weights ({shown}): name the one to take {OPEN_CLIP_WEIGHTS[0]}"
            )
        weights = others[0] if others else None
    if weights is None:
        raise UserError(f"folder '{folder}' has no weights: none of {', '.join(OPEN_CLIP_WEIGHTS)}")
    refuse_wrong_file(weights)
    return FoundFolder("open_clip", folder.resolve().name, folder, weights)


def _huggingface(folder: Path) -> FoundFolder | None:
    config = folder / "config.json"
    if not config.is_file():
        return None
    refuse_other_family(config)
    weights = next((folder / name for name in TRANSFORMERS_WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        if (folder / OPEN_CLIP_CONFIG).is_file():
            return None
        raise UserError(f"{folder}: has no weights: {_weights_there(folder)}")
    if weights.suffix != ".json":
        refuse_wrong_file(weights)
    return FoundFolder("huggingface", folder.resolve().name, folder, weights)


def refuse_other_family(config: Path) -> None:
    """Refuse a ``config.json`` that is not one of a dual encoder, as far as its family tells.

    Raises:
        UserError: it is one of a single tower, of timm's or of nothing; the message says where such a model goes.
    """
    values = read_json(config)
    family = values.get("model_type")
    if family is None:
        if _TIMM_KEY in values or "architecture" in values:
            name = values.get("architecture", "?")
            raise UserError(
                f"{config}: an image model of timm's ('{name}'), not a dual encoder: it goes to "
                f"model.vision.timm_model_name"
            )
        raise UserError(f"{config}: key 'model_type' is missing: no configuration of a Hugging Face model")
    _refuse_single_tower(config, str(family))


def _refuse_single_tower(config: Path, family: str) -> None:
    """Refuse a text tower or an image tower alone; other families are for the loader to judge."""
    one_tower = family.endswith(("_text_model", "_vision_model"))
    if not one_tower and _DUAL_FAMILIES.search(family):
        return
    if _IMAGE_FAMILIES.search(family):
        kind, key = "an image model alone", "a timm model of the same name goes to model.vision.timm_model_name"
    else:
        kind, key = "a text model alone", "it goes to model.text.hf_model_name"
    raise UserError(f"{config}: family '{family}' is not 'clip' or 'siglip' but {kind}, not a dual encoder; {key}")


def _why_not(folder: Path) -> str:
    """Say what a folder without a model holds instead."""
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        base = read_json(adapter).get("base_model_name_or_path")
        return (
            f"folder '{folder}' holds an adapter (LoRA) of '{base}' and not a model: merge it into that one "
            "(peft's merge_and_unload), save it, and give the merged folder"
        )
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return f"folder '{folder}' holds no model: it is empty"
    for path in folder.iterdir():
        if path.suffix in _FOREIGN_FORMATS:
            kind = _FOREIGN_FORMATS[path.suffix]
            return f"folder '{folder}' holds no model in PyTorch's form: '{path.name}' is {kind}'s"
    files = [name for name in names if Path(name).suffix in WEIGHT_ENDINGS]
    if files:
        return f"folder '{folder}' holds weights without a configuration: give the file, such as '{folder / files[0]}'"
    inner = [name for name in names if _is_model(folder / name)]
    hint = f"; did you mean '{folder / inner[0]}'?" if inner else ""
    return (
        f"folder '{folder}' holds no model: neither {ARCHITECTURE_FILE} (a checkpoint), checkpoints/ (a run), "
        f"{OPEN_CLIP_CONFIG} (an export) nor config.json (a Hugging Face CLIP model){hint}"
    )


def _is_model(folder: Path) -> bool:
    marks = (ARCHITECTURE_FILE, "checkpoints", OPEN_CLIP_CONFIG, "config.json")
    return folder.is_dir() and any((folder / mark).exists() for mark in marks)


def _weights_there(folder: Path) -> str:
    for path in sorted(folder.iterdir()):
        if path.suffix in _FOREIGN_FORMATS:
            return f"'{path.name}' is {_FOREIGN_FORMATS[path.suffix]}'s, and no model.safetensors is beside it"
    names = [path.name for path in folder.iterdir()]
    return f"neither model.safetensors nor pytorch_model.bin{did_you_mean('model.safetensors', names)}"
