"""Follow a run: find each checkpoint when it appears, know which are scored already, and when the run is finished."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bimodal_cl.cli.processes import is_main_process
from bimodal_cl.errors import UserError
from bimodal_cl.files.checksums import hash_files
from bimodal_cl.models.locate.source import AVERAGED, TRAINED
from bimodal_cl.models.weights.file_names import EMA_FILE, WEIGHTS_FILE
from bimodal_cl.run_folder import RunFolder

_PAUSE = 2.0  # seconds between looks at the run's folder
_TAIL = 1 << 16  # bytes of the log that its last line surely fits in
# Arguments that no score depends on.
_WITHOUT_EFFECT = ("models", "device", "batch_size", "num_workers", "to", "cache", "watch", "command_line", "config")


def require_run(models: Sequence[str], weights: str = TRAINED) -> RunFolder:
    """Return the folder of the run to follow.

    Args:
        models: what the user named.
        weights: which weights are wanted, ``model`` or ``ema``.

    Raises:
        UserError: several models are named, or something else than a run, or a run that has only other weights.
    """
    if len(models) != 1:
        raise UserError(f"--watch follows one run, got {len(models)} models")
    run = RunFolder(Path(models[0]).expanduser())
    if not run.config.is_file() and not run.checkpoints.is_dir():
        raise UserError(f"--watch {models[0]}: no {run.config.name} in it, so this is not a run's folder")
    _require_weights(run, weights)
    return run


def new_checkpoints(run: RunFolder, weights: str) -> Iterator[Path]:
    """Yield each checkpoint that the run has or gets, the oldest first, until the run is finished.

    A checkpoint that is written again comes again. All processes get the same ones.

    Args:
        run: the run.
        weights: which weights a checkpoint must hold, ``model`` or ``ema``.

    Raises:
        UserError: the run has checkpoints, but none with averaged weights, which are wanted.
    """
    from bimodal_cl.distributed import gather_objects

    holding = _file_name(weights)
    seen: dict[Path, tuple[int, int]] = {}
    while True:
        finished = is_finished(run)  # before the look at the checkpoints, so that the last one is not missed
        found = gather_objects(_first_unseen(run, holding, seen) if is_main_process() else None)[0]
        if found is not None:
            seen[found[0]] = found[1]
            yield found[0]
            continue
        _require_weights(run, weights)
        if gather_objects(finished)[0]:
            return
        time.sleep(_PAUSE)


def _first_unseen(
    run: RunFolder, holding: str, seen: dict[Path, tuple[int, int]]
) -> tuple[Path, tuple[int, int]] | None:
    """Return the oldest checkpoint that is new or was written again, with what tells it from an earlier one."""
    for checkpoint in run.list_checkpoints(holding):
        try:
            state = (checkpoint / holding).stat()
        except OSError:  # removed just now
            continue
        version = (state.st_mtime_ns, state.st_size)
        if seen.get(checkpoint) != version:
            return checkpoint, version
    return None


def _require_weights(run: RunFolder, weights: str) -> None:
    """Refuse a run that has checkpoints, but none with the averaged weights that are wanted."""
    if weights != AVERAGED or run.list_checkpoints(EMA_FILE):
        return
    newest = run.newest_checkpoint(WEIGHTS_FILE)
    if newest is not None and not (newest / EMA_FILE).is_file() and newest.is_dir():
        raise UserError(
            f"--watch {run.path} --weights {AVERAGED}: no averaged weights: '{EMA_FILE}' is missing in {newest}; a run "
            "keeps them with ema.decay"
        )


def _file_name(weights: str) -> str:
    return EMA_FILE if weights == AVERAGED else WEIGHTS_FILE


def is_finished(run: RunFolder) -> bool:
    """Return whether the log ends with the summary of a finished training."""
    try:
        with run.metrics.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            return json.loads(file.read().splitlines()[-1])["event"] == "summary"
    except (OSError, ValueError, IndexError, KeyError, TypeError):  # no log yet, or a line that is being written
        return False


def hash_task(arguments: argparse.Namespace, hash_data: Callable[[], str | None] | None) -> str:
    """Return a hash of what is scored, and how: with the same one, the same weights have the same scores.

    Args:
        arguments: of the command.
        hash_data: identifies the data by their content; None, or data that cannot be read: their arguments alone do.
    """
    from .features.identity import hash_values

    settings = {name: _content(value) for name, value in vars(arguments).items() if name not in _WITHOUT_EFFECT}
    try:
        data = None if hash_data is None else hash_data()
    except OSError:
        data = None
    return hash_values(arguments.command_line.split()[:2], settings, data)


def _content(value: Any) -> str:
    """Return what an argument says; of a file, such as one of prompts, a hash of its content."""
    return hash_files(Path(value)) if isinstance(value, (str, Path)) and Path(value).is_file() else str(value)


def is_scored(folder: Path, task: str, checkpoint: Path, weights: str) -> bool:
    """Return whether a folder holds a result of a checkpoint's weights in this task; False for one that is gone.

    Args:
        folder: of the results.
        task: from :func:`hash_task`.
        checkpoint: of the run.
        weights: which of its weights, ``model`` or ``ema``.
    """
    results = list(folder.glob(f"*~{checkpoint.name}*.json"))
    try:
        weights_sha256 = hash_files(checkpoint / _file_name(weights)) if results else None
    except OSError:
        return False
    for path in results:
        try:
            provenance: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["provenance"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if (provenance.get("watched"), provenance.get("checkpoint_sha256")) == (task, weights_sha256):
            return True
    return False
