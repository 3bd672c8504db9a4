"""Write and load a run's checkpoints.

A checkpoint is a folder ``checkpoints/step_00001000``:

- ``model.safetensors``, ``model.json`` (and ``tokenizer/``): everything :func:`bimodal_cl.models.load_model` needs;
- ``ema.safetensors``, with ``ema.decay``: the averaged weights, with the tensors' names of ``model.safetensors``;
- ``loss.safetensors``: the loss's parameters and per-anchor tables;
- ``optimizer.pt``: loadable with ``weights_only=True``;
- ``state.json``: step, epoch, samples seen, scores, and what the sample order depends on;
- ``SHA256SUMS``: checksums of all these files, which a resume verifies.

It is written under a temporary name, flushed to the disk and renamed, so a crash leaves the previous one. The folder's
names, and which checkpoint is the newest, are in :mod:`bimodal_cl.run_folder`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bimodal_cl.errors import RunStopped, UserError
from bimodal_cl.files.atomic import flush_folder, point_link
from bimodal_cl.files.checksums import write_checksums
from bimodal_cl.run_folder import (
    BEST,
    LATEST,
    LOSS_FILE,
    OPTIMIZER_FILE,
    PARTIAL,
    REPLACED,
    STATE_FILE,
    RunFolder,
)


class CheckpointNotWritten(RunStopped):
    """A checkpoint could not be written; the earlier ones are whole."""


def save_checkpoint(
    run: RunFolder,
    state: dict[str, Any],
    *,
    save_model: Callable[[Path], None],
    loss_state: dict[str, Tensor],
    optimizer_state: dict[str, Any],
    keep_last: int,
    is_best: bool = False,
) -> Path:
    """Write a checkpoint, point ``latest`` (and ``best``) at it, and remove those that need not be kept.

    Args:
        run: the run's folder.
        state: goes to ``state.json``; ``state["step"]`` names the checkpoint.
        save_model: writes the model into a folder.
        loss_state: the loss's whole state, sharded tables put together (``gather_state``).
        optimizer_state: the optimizer's whole state, as :func:`optimizer_state` returns it.
        keep_last: how many of the newest to keep, >= 1; the checkpoint that ``best`` points to is also kept.
        is_best: whether this is the best one so far.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointNotWritten: it cannot be written (a full disk, say); earlier checkpoints stay.
    """
    final = run.checkpoint(state["step"])
    partial, replaced = (final.with_name(final.name + ending) for ending in (PARTIAL, REPLACED))
    for left in run.checkpoints.glob(f"*{PARTIAL}"):  # by a run that was killed while it wrote
        shutil.rmtree(left, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        save_model(partial)
        save_file({key: value.contiguous() for key, value in loss_state.items()}, partial / LOSS_FILE)
        torch.save(optimizer_state, partial / OPTIMIZER_FILE)
        (partial / STATE_FILE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        write_checksums(partial)
        flush_folder(partial)
        if final.exists():  # the same step was saved before
            final.rename(replaced)
        partial.rename(final)
        point_link(run.checkpoints / LATEST, final.name)
        if is_best:
            point_link(run.checkpoints / BEST, final.name)
    except Exception as error:  # safetensors and torch report a full disk by errors of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointNotWritten(f"the checkpoint {final} could not be written: {reason}") from error
    finally:  # also after a second Ctrl-C
        if replaced.exists() and not final.exists():
            replaced.rename(final)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
    _remove_old(run, keep_last)
    return final


def load_checkpoint(
    checkpoint: Path, *, load_model: Callable[[Path], None], loss: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Put a checkpoint's weights, tables and moments into freshly built objects.

    Every rank reads the files, however many ranks wrote them; of a sharded table it takes its own rows.

    Raises:
        UserError: a file is missing or broken, or its tensors do not fit; the message names the file and the tensor.
    """
    load_model(checkpoint)
    _load_tensors(loss, checkpoint / LOSS_FILE)
    path = checkpoint / OPTIMIZER_FILE
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        groups = [len(saved) for saved in (state["param_groups"], optimizer.param_groups)]
        if groups[0] != groups[1]:  # what else makes groups is compared before
            raise ValueError(
                f"it has {groups[0]} parameter groups, and this config makes {groups[1]}: give "
                "optim.temperature_learning_rate if and only if the run so far had it"
            )
        load_optimizer_state(optimizer, state)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
        raise UserError(f"{path}: cannot be loaded: {str(error).splitlines()[0]}") from None


def temperature_to_save(loss: nn.Module, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the ``logit_scale``, and with SigLIP the ``logit_bias``, that a saved model carries.

    With them an open_clip model turns similarities into logits: ``exp(logit_scale) * sims + logit_bias``.
    A loss that learns them gives its own. With any other loss ``logit_scale`` is ``log(1 / tau)`` for the mean ``tau``
    of the last step's anchors, images and texts: the temperature itself where it is fixed, the typical one where each
    image and each text has its own.

    Args:
        loss: the loss of the run.
        metrics: of the last step, with ``tau_image`` and ``tau_text``.
    """
    learned = {name: parameter.detach() for name, parameter in loss.named_parameters()}
    if "logit_scale" in learned:
        return {name: learned[name] for name in ("logit_scale", "logit_bias") if name in learned}
    return {"logit_scale": -torch.log((metrics["tau_image"] + metrics["tau_text"]) / 2)}


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimizer's state for a checkpoint: without the names of its groups, which are this program's own."""
    state = optimizer.state_dict()
    return {**state, "param_groups": without_names(state["param_groups"])}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what :func:`optimizer_state` returned; the groups keep their names.

    Moments take their parameter's layout in memory, which need not be the one that they were saved in: fused optimizers
    pair numbers by their place in memory.

    Raises:
        ValueError: the state has other groups or parameters.
    """
    names = [{key: group[key] for key in ("name",) if key in group} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, name in zip(optimizer.param_groups, names, strict=True):
        group.update(name)
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def without_names(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return an optimizer's parameter groups without the names that this program gives them."""
    return [{key: value for key, value in group.items() if key != "name"} for group in groups]


def _load_tensors(module: nn.Module, path: Path) -> None:
    try:
        saved: dict[str, Tensor] = load_file(path)
    except Exception as error:  # safetensors raises its own type for broken files
        raise UserError(f"{path}: cannot be read: {error}") from None
    try:
        missing, unexpected = module.load_state_dict(saved, strict=False)
    except RuntimeError as error:  # wrong shapes; only its second line names the tensor
        reason = str(error).partition("\n")[2].split("\n")[0].strip()
        raise UserError(f"{path}: does not fit this config: {reason or error}") from None
    if missing or unexpected:
        raise UserError(f"{path}: does not fit this config: missing {missing[:3]}, unexpected {unexpected[:3]}")


def _remove_old(run: RunFolder, keep_last: int) -> None:
    best = run.checkpoints / BEST
    kept = best.resolve() if best.exists() else None
    for old in run.list_checkpoints()[:-keep_last]:
        if old.resolve() != kept:
            removed = old.with_name(old.name + PARTIAL)  # so that a kill leaves no part of it under its name
            old.rename(removed)
            shutil.rmtree(removed)
