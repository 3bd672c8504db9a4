"""Find the model in a folder: a run, a checkpoint, an export, or a Hugging Face model."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from bimodal_cl.errors import UserError
from bimodal_cl.models.locate.diagnose import explain_folder, explain_missing_weights, refuse_other_family
from bimodal_cl.models.locate.source import ModelSource
from bimodal_cl.models.weights.file_names import (
    ARCHITECTURE_FILE,
    EMA_FILE,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_STATE_DICT,
    OPEN_CLIP_WEIGHTS,
    TRANSFORMERS_WEIGHTS,
    WEIGHTS_FILE,
)
from bimodal_cl.models.weights.foreign_formats import refuse_foreign_format
from bimodal_cl.run_folder import LATEST, LOSS_FILE, OPTIMIZER_FILE, RunFolder

# open_clip accepts weights of any name with these suffixes next to its config; they are tried last.
_OTHER_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")


def find_in_folder(folder: Path, what: str) -> ModelSource:
    """Find the model in a folder; of a run, it is the newest checkpoint.

    Args:
        folder: a run, a checkpoint, an export in open_clip's format, or a Hugging Face model.
        what: the model, for messages.

    Raises:
        UserError: the folder holds no model; the message begins with `what` and says what it holds instead.
    """
    if (folder / ARCHITECTURE_FILE).is_file():
        return _checkpoint(folder, what)
    for run in map(RunFolder, (folder, folder.parent)):
        if run.checkpoints.is_dir() and folder in (run.path, run.checkpoints):
            return _checkpoint(_newest_checkpoint(run, what), what, run.path)
    for reader in (_open_clip, _huggingface):
        if (found := reader(folder)) is not None:
            return found
    raise UserError(f"{what}: {explain_folder(folder)}")


def find_in_file(path: Path, what: str) -> ModelSource | None:
    """Find the model that a file belongs to by the files next to it; None for a weights file on its own.

    Args:
        path: the file.
        what: the model, for messages.

    Raises:
        UserError: the file belongs to a model's folder and is not its weights.
    """
    folder = path.parent
    if path.name in (WEIGHTS_FILE, EMA_FILE) and (folder / ARCHITECTURE_FILE).is_file():
        found = _checkpoint(folder, what)
        return with_average(found, what) if path.name == EMA_FILE else found
    if path.name in (*OPEN_CLIP_WEIGHTS, OPEN_CLIP_STATE_DICT) and (folder / OPEN_CLIP_CONFIG).is_file():
        return ModelSource("open_clip", folder.resolve().name, str(folder), path, folder)
    if path.name in TRANSFORMERS_WEIGHTS and (folder / "config.json").is_file():
        return _huggingface(folder)
    if path.suffix in (".json", ".yaml", ".yml"):
        raise UserError(f"{what} is a configuration file, not a weights file: give the folder it is in")
    if path.name in (OPTIMIZER_FILE, LOSS_FILE) and (folder / ARCHITECTURE_FILE).is_file():
        raise UserError(f"{what} holds no model: give the folder it is in")
    return None


def with_average(source: ModelSource, what: str) -> ModelSource:
    """Return the averaged weights of a checkpoint in place of the trained ones.

    Args:
        source: a model that was found.
        what: the model, for messages.

    Raises:
        UserError: it is no checkpoint, or the run kept no average.
    """
    if source.kind != "checkpoint" or source.folder is None:
        raise UserError(f"{what}: only the checkpoints of a run have averaged weights (ema)")
    weights = source.folder / EMA_FILE
    if not weights.is_file():
        raise UserError(
            f"{what}: no averaged weights: '{EMA_FILE}' is missing in {source.folder}; a run keeps them with ema.decay"
        )
    refuse_foreign_format(weights)
    return replace(source, weights=weights, pretrained=str(weights))


def _checkpoint(folder: Path, what: str, run: Path | None = None) -> ModelSource:
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise UserError(f"{what}: '{WEIGHTS_FILE}' is missing in {folder}")
    refuse_foreign_format(weights)
    named = folder.absolute().parent.parent if folder.absolute().parent.name == "checkpoints" else folder
    return ModelSource("checkpoint", named.resolve().name, str(folder), weights, folder, run=run)


def _newest_checkpoint(run: RunFolder, what: str) -> Path:
    newest = run.newest_checkpoint(holding=ARCHITECTURE_FILE)
    if newest is not None:
        return newest
    if theirs := sorted(run.checkpoints.glob("*.pt"), key=lambda path: path.stat().st_mtime):
        raise UserError(
            f"{what} is an open_clip run, whose checkpoints do not state their architecture: name it before the file, "
            f"as in '{_open_clip_architecture(run.path)}:{theirs[-1]}'"
        )
    raise UserError(f"{what}: the run has no checkpoint yet: no {run.checkpoints / LATEST}")


def _open_clip_architecture(run: Path) -> str:
    """Return the architecture in ``params.txt``, which open_clip's training writes, or ``NAME`` without it."""
    params = run / "params.txt"
    text = params.read_text("utf-8", errors="replace") if params.is_file() else ""
    model = re.search(r"^model: (\S+)$", text, re.MULTILINE)
    return model[1] if model else "NAME"


def _open_clip(folder: Path) -> ModelSource | None:
    config = folder / OPEN_CLIP_CONFIG
    if not config.is_file():
        return None
    weights = next((folder / name for name in OPEN_CLIP_WEIGHTS if (folder / name).is_file()), None)
    if weights is None and (found := _huggingface(folder)) is not None:
        return found  # a repository in both formats, of which only transformers' was downloaded
    if weights is None:
        others = [path for suffix in _OTHER_SUFFIXES for path in sorted(folder.glob(f"*{suffix}"))]
        if len(others) > 1:
            shown = ", ".join(path.name for path in others[:4])
            raise UserError(
                f"folder '{folder}' has several weights files ({shown}): rename the one to load to "
                f"{OPEN_CLIP_WEIGHTS[0]}"
            )
        weights = others[0] if others else None
    if weights is None:
        raise UserError(f"folder '{folder}' has no weights: none of {', '.join(OPEN_CLIP_WEIGHTS)}")
    refuse_foreign_format(weights)
    return ModelSource("open_clip", folder.resolve().name, str(folder), weights, folder)


def _huggingface(folder: Path) -> ModelSource | None:
    config = folder / "config.json"
    if not config.is_file():
        return None
    refuse_other_family(config)
    weights = next((folder / name for name in TRANSFORMERS_WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        if (folder / OPEN_CLIP_CONFIG).is_file():
            return None
        raise UserError(f"{folder}: has no weights: {explain_missing_weights(folder)}")
    if weights.suffix != ".json":
        refuse_foreign_format(weights)
    return ModelSource("huggingface", folder.resolve().name, str(folder), weights, folder)
