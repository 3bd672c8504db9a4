"""Which kind of model a folder holds, and why it cannot be used where it holds none."""

from __future__ import annotations

import re
from pathlib import Path

from bimodal_cl.errors import UserError
from bimodal_cl.models.locate.diagnose import explain_folder, explain_missing_weights, refuse_other_family
from bimodal_cl.models.locate.source import ModelSource
from bimodal_cl.models.weights.file_names import (
    ARCHITECTURE_FILE,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
    TRANSFORMERS_WEIGHTS,
    WEIGHTS_FILE,
)
from bimodal_cl.models.weights.foreign_formats import refuse_foreign_format

# open_clip takes any of these endings beside its config; endings without a name above come last.
_OTHER_WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")


def find_in_folder(folder: Path, what: str) -> ModelSource:
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
    raise UserError(f"{what}: {explain_folder(folder)}")


def find_in_file(path: Path, what: str) -> ModelSource | None:
    """Find the model whose file this is, by what lies beside it; None for a file of weights alone.

    Raises:
        UserError: the file belongs to a run, and is not its model.
    """
    folder = path.parent
    if path.name == WEIGHTS_FILE and (folder / ARCHITECTURE_FILE).is_file():
        return _checkpoint(folder, what)
    if path.name in OPEN_CLIP_WEIGHTS and (folder / OPEN_CLIP_CONFIG).is_file():
        return ModelSource("open_clip", folder.resolve().name, str(folder), path, folder)
    if path.name in TRANSFORMERS_WEIGHTS and (folder / "config.json").is_file():
        return _huggingface(folder)
    if path.suffix in (".json", ".yaml", ".yml"):
        raise UserError(f"{what} is a file of settings, not of weights: give the folder it is in")
    if path.name in ("optimizer.pt", "loss.safetensors") and (folder / ARCHITECTURE_FILE).is_file():
        raise UserError(f"{what} holds no model: give the folder it is in")
    return None


def _checkpoint(folder: Path, what: str, run: Path | None = None) -> ModelSource:
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise UserError(f"{what}: '{WEIGHTS_FILE}' is missing in {folder}")
    refuse_foreign_format(weights)
    named = folder.absolute().parent.parent if folder.absolute().parent.name == "checkpoints" else folder
    return ModelSource("checkpoint", named.resolve().name, str(folder), weights, folder, run=run)


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


def _open_clip(folder: Path) -> ModelSource | None:
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
