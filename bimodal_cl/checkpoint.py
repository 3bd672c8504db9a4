"""A run's checkpoints: whole or absent, the newest by a link, the oldest removed.

A checkpoint is a folder ``checkpoints/step_00001000``:

- ``model.safetensors``, ``model.json`` (and ``tokenizer/``): everything :func:`bimodal_cl.models.load_model` needs;
- ``loss.safetensors``: the loss's parameters and per-anchor tables;
- ``optimizer.pt``: loadable with ``weights_only=True``;
- ``state.json``: step, epoch, samples seen, scores, and what the sample order depends on.

It is written under a temporary name, flushed to the disk and renamed, so a crash leaves the previous one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bimodal_cl.errors import RunStopped, UserError, did_you_mean
from bimodal_cl.files.text_files import read_text

LATEST, BEST = "latest", "best"
_PARTIAL = ".partial"


def save_checkpoint(
    folder: Path,
    state: dict[str, Any],
    *,
    save_model: Callable[[Path], None],
    loss_state: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    keep_last: int,
    is_best: bool = False,
) -> Path:
    """Write ``folder/step_N``, point ``latest`` (and ``best``) at it, remove what need not be kept.

    Args:
        folder: the run's ``checkpoints`` folder.
        state: goes to ``state.json``; ``state["step"]`` names the checkpoint.
        save_model: writes the model into a folder.
        loss_state: the loss's whole state, sharded tables put together (``gather_state``).
        optimizer: its ``state_dict`` is saved.
        keep_last: how many of the newest to keep; what ``best`` points at is kept besides.
        is_best: whether this is the best one so far.

    Returns:
        The checkpoint's folder.

    Raises:
        RunStopped: it cannot be written (a full disk, say); earlier checkpoints stay.
    """
    final = folder / f"step_{state['step']:08d}"
    partial = final.with_name(final.name + _PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        save_model(partial)
        save_file({key: value.contiguous() for key, value in loss_state.items()}, partial / "loss.safetensors")
        torch.save(optimizer.state_dict(), partial / "optimizer.pt")
        (partial / "state.json").write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        _flush(partial)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _point(folder / LATEST, final.name)
        if is_best:
            _point(folder / BEST, final.name)
    except Exception as error:  # safetensors and torch report a full disk by errors of their own
        shutil.rmtree(partial, ignore_errors=True)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunStopped(
            f"the checkpoint {final} could not be written: {reason}; make room and go on with --resume latest"
        ) from error
    _remove_old(folder, keep_last)
    return final


def find_checkpoint(folder: Path, name: str) -> Path | None:
    """Return the checkpoint ``latest``, ``best``, ``step_N`` or a path; None for ``latest`` where there is none yet.

    Raises:
        UserError: no such checkpoint.
    """
    candidate = folder / name if (folder / name).exists() else Path(name)
    if (candidate / "state.json").is_file():
        return candidate.resolve()
    if name == LATEST:
        whole = _whole_checkpoints(folder)  # a crash between the two renames leaves the link behind by one
        return whole[-1].resolve() if whole else None
    known = [LATEST, *(path.name for path in _whole_checkpoints(folder))]
    raise UserError(f"--resume: no checkpoint '{name}' in {folder}{did_you_mean(name, known)}")


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return ``state.json``.

    Raises:
        UserError: it cannot be read.
    """
    try:
        state: dict[str, Any] = json.loads(read_text(checkpoint / "state.json"))
    except (OSError, ValueError) as error:
        raise UserError(f"checkpoint {checkpoint}: state.json cannot be read: {error}") from None
    return state


def load_checkpoint(
    checkpoint: Path, *, load_model: Callable[[Path], None], loss: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Put a checkpoint's weights, tables and moments into freshly built objects.

    Every rank reads the files, whatever wrote them; of a sharded table it takes its own rows.

    Raises:
        UserError: a file is missing or broken, or its tensors do not fit; the message names the file and the tensor.
    """
    load_model(checkpoint)
    _load_tensors(loss, checkpoint / "loss.safetensors")
    path = checkpoint / "optimizer.pt"
    try:
        optimizer.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
        raise UserError(f"{path}: cannot be loaded: {str(error).splitlines()[0]}") from None


def _load_tensors(module: nn.Module, path: Path) -> None:
    try:
        saved: dict[str, Tensor] = load_file(path)
    except Exception as error:  # safetensors raises its own type for broken files
        raise UserError(f"{path}: cannot be read: {error}") from None
    try:
        missing, unexpected = module.load_state_dict(saved, strict=False)
    except RuntimeError as error:  # shapes; the first line says only that there are such
        reason = str(error).partition("\n")[2].split("\n")[0].strip()
        raise UserError(f"{path}: does not fit this config: {reason or error}") from None
    if missing or unexpected:
        raise UserError(f"{path}: does not fit this config: missing {missing[:3]}, unexpected {unexpected[:3]}")


def _whole_checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step_*") if (path / "state.json").is_file() and path.suffix != _PARTIAL)


def _remove_old(folder: Path, keep_last: int) -> None:
    best = (folder / BEST).resolve() if (folder / BEST).exists() else None
    for old in _whole_checkpoints(folder)[:-keep_last]:
        if old.resolve() != best:
            shutil.rmtree(old)


def _flush(folder: Path) -> None:
    for path in [*(p for p in folder.rglob("*") if p.is_file()), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _point(link: Path, target: str) -> None:
    temporary = link.with_name(link.name + _PARTIAL)
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
