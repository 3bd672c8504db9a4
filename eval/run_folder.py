"""A run's folder as the evaluation reads it: configuration, log, scores, per-anchor tables, and where its data are."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from bimodal_cl.errors import UserError
from bimodal_cl.files.text_files import NotText, decode_text, read_text

if TYPE_CHECKING:
    from bimodal_cl.data.shards.mixture import Mixture


@dataclass(frozen=True)
class RunFolder:
    """What a training run left behind.

    ``training`` and ``evaluations`` are the log's lines ordered by step; where a resumed run logged a step twice, the
    later line counts. ``results`` are the score files with their file name under ``"file"``. ``tables`` maps names as
    ``image_anchors.tau`` to arrays and is empty where the loss keeps none or no checkpoint exists yet.
    """

    path: Path
    config: dict[str, Any]
    training: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    summary: dict[str, Any]
    results: list[dict[str, Any]]
    checkpoint: Path | None
    step: int
    tables: dict[str, np.ndarray]

    @property
    def loss(self) -> dict[str, Any]:
        """The configuration's ``loss`` section: ``name`` and its hyperparameters."""
        return self.config["loss"]


def load_run(path: str | Path) -> RunFolder:
    """Read a run's folder.

    Raises:
        UserError: the folder, its ``config.yaml`` or ``metrics.jsonl`` is missing, or a file in it cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such run folder")
    config = _load_config(path / "config.yaml")
    lines = list(_load_log(path / "metrics.jsonl"))
    checkpoint, step = _newest_checkpoint(path / "checkpoints")
    training = _by_step(line for line in lines if line.get("event") == "train")
    return RunFolder(
        path=path,
        config=config,
        training=training,
        evaluations=_by_step(line for line in lines if line.get("event") == "evaluate"),
        summary=next((line for line in reversed(lines) if line.get("event") == "summary"), {}),
        results=[_load_result(file) for file in sorted((path / "results").glob("*.json"))],
        checkpoint=checkpoint,
        step=step if checkpoint else (training[-1]["step"] if training else 0),
        tables=_load_tables(checkpoint) if checkpoint else {},
    )


def find_data(run: RunFolder, folder: str | None) -> Path | None:
    """Find a shard folder that a run names, or ``None``.

    A relative name counts from the working directory, and where that fails from each folder above the run, so that
    a project that was moved or is looked at from elsewhere still finds its data.
    """
    if not isinstance(folder, str) or not folder:
        return None
    candidates = [Path(folder)]
    if not candidates[0].is_absolute():
        candidates += [parent / folder for parent in run.path.resolve().parents]
    return next((each for each in candidates if (each / "manifest.json").is_file()), None)


def find_training_data(run: RunFolder) -> tuple[Mixture | None, str]:
    """Find the data a run was trained on and check them against its tables: ``(data, "")`` or ``(None, why)``."""
    from bimodal_cl.data import Manifest
    from bimodal_cl.data.shards.mixture import Mixture

    section = run.config.get("data")
    named = section.get("train") if isinstance(section, dict) else None
    manifests = []
    for one in named if isinstance(named, list) else [named]:
        folder = one.get("folder") if isinstance(one, dict) else one
        found = find_data(run, folder)
        if found is None:
            return None, f"the training data were not found at '{folder}'"
        try:
            manifests.append(Manifest.load(found))
        except UserError as error:
            return None, f"the training data cannot be read: {error}"
    data = Mixture(manifests)
    for kind, count in (("image", data.num_images), ("text", data.num_texts)):
        table = next((array for name, array in run.tables.items() if name.startswith(f"{kind}_anchors.")), None)
        if table is not None and table.ndim == 1 and len(table) != count:
            return None, f"{data} holds {count:,} {kind}s, the run's tables {len(table):,}: not the data it saw"
    return data, ""


def write_whole(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it, so that it is whole or absent.

    Raises:
        UserError: the folder does not exist or may not be written to.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file")
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", newline="", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as stream:
            temporary = Path(stream.name)
            stream.write(text)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # a temporary file is private; a report is as readable as any other file
        temporary.replace(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    except OSError as error:
        error.filename = error.filename or str(path)  # of a full disk the system does not say which file
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _load_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path.parent}: no config.yaml, so this is not a run's folder")
    try:
        config = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, NotText) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict) or not isinstance(config.get("loss"), dict) or "name" not in config["loss"]:
        raise UserError(f"{path}: no loss.name, so this is not a run's configuration")
    return config


def _load_log(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"{path.parent}: no metrics.jsonl; the run has not logged a step yet")
    lines = decode_text(path.read_bytes(), "replace").splitlines()
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            if number == len(lines):
                return  # a run that was killed while it wrote: the line is not whole
            raise UserError(f"{path}: line {number} is not JSON: {error.msg}") from error
        if not isinstance(line, dict):
            raise UserError(f"{path}: line {number} is not a mapping")
        yield line


def _by_step(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for _, line in sorted({int(line["step"]): line for line in lines if "step" in line}.items())]


def _load_result(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(read_text(path))
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(result, dict) or not isinstance(result.get("metrics"), dict):
        raise UserError(f"{path}: no 'metrics', so this is not a result of an evaluation")
    return {**result, "file": path.name}


def _newest_checkpoint(folder: Path) -> tuple[Path | None, int]:
    latest = folder / "latest"
    checkpoint: Path | None = latest.resolve() if latest.is_dir() else max(folder.glob("step_*"), default=None)
    if checkpoint is None:
        return None, 0
    state = checkpoint / "state.json"
    try:
        return checkpoint, int(json.loads(read_text(state))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        digits = checkpoint.name.rpartition("_")[2]
        if digits.isdigit():
            return checkpoint, int(digits)
        raise UserError(f"{state}: no 'step' in it, so this is not a whole checkpoint") from None


def _load_tables(checkpoint: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = checkpoint / "loss.safetensors"
    if not path.is_file():
        return {}
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not readable: {error}") from error
