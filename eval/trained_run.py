"""Read what a training run left in its folder: configuration, log, scores, per-anchor tables; and find its data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bimodal_cl.errors import UserError
from bimodal_cl.run_folder import LOSS_FILE, STATE_FILE, RunFolder, read_state

if TYPE_CHECKING:
    from bimodal_cl.data.shards.mixture import Mixture


@dataclass(frozen=True)
class TrainedRun:
    """What a training run left behind.

    Attributes:
        folder: the run's folder.
        config: the values of ``config.yaml``.
        training: the log's lines of training steps, ordered by step; where a step was logged twice, the later line.
        evaluations: the log's lines of evaluations, likewise.
        results: the score files' contents, with their file name under ``"file"``.
        checkpoint: the newest checkpoint, or None.
        step: optimizer steps of that checkpoint, or else of the log.
        tables: arrays of the loss by name, such as ``image_anchors.tau``; empty where the loss keeps none or there is
            no checkpoint yet.
    """

    folder: RunFolder
    config: dict[str, Any]
    training: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    results: list[dict[str, Any]]
    checkpoint: Path | None
    step: int
    tables: dict[str, np.ndarray]

    @property
    def path(self) -> Path:
        """Path of the run's folder."""
        return self.folder.path

    @property
    def loss(self) -> dict[str, Any]:
        """The configuration's ``loss`` section: ``name`` and its hyperparameters."""
        return self.config["loss"]


def load_run(path: str | Path) -> TrainedRun:
    """Read a run's folder.

    Raises:
        UserError: the folder, its ``config.yaml`` or ``metrics.jsonl`` is missing, or a file in it cannot be read.
    """
    folder = RunFolder(Path(path))
    if not folder.path.is_dir():
        raise UserError(f"{path}: no such run folder")
    config = folder.read_config()
    lines = list(folder.read_log())
    checkpoint = folder.newest_checkpoint()
    training = _by_step(line for line in lines if line.get("event") == "train")
    last_logged = training[-1]["step"] if training else 0
    return TrainedRun(
        folder=folder,
        config=config,
        training=training,
        evaluations=_by_step(line for line in lines if line.get("event") == "evaluate"),
        results=folder.read_results(),
        checkpoint=checkpoint,
        step=last_logged if checkpoint is None else step_of(checkpoint),
        tables={} if checkpoint is None else load_tables(checkpoint),
    )


def sections_in_use(config: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the sections of a run's configuration that say something: ``ema`` says nothing without a decay."""
    sections = {name: config[name] for name in names if config.get(name)}
    if not isinstance(ema := sections.get("ema"), dict) or ema.get("decay") is None:
        sections.pop("ema", None)
    return sections


def flat_settings(section: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Return ``(dotted key, value)`` of the keys of a configuration, or a section of it, that are set."""
    if not isinstance(section, dict):
        return [(prefix.rstrip("."), str(section))]
    rows: list[tuple[str, str]] = []
    for key, value in section.items():
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            value = dict(enumerate(value))  # a list of data sets: one line per key
        if isinstance(value, dict):
            rows += flat_settings(value, f"{prefix}{key}.")
        elif value is not None:
            rows.append((f"{prefix}{key}", str(value)))
    return rows


def find_data(run: TrainedRun, folder: str | None) -> Path | None:
    """Find a shard folder that a run names, or ``None``.

    A relative name is looked up in the working directory, then in each folder above the run, so that the data are also
    found from another working directory, or after a project was moved.
    """
    return find_shards(run.path, folder)


def find_shards(near: Path, folder: Any) -> Path | None:
    """Find a shard folder by its name, as :func:`find_data` does, from the folder of a run or of results."""
    if not isinstance(folder, str) or not folder:
        return None
    candidates = [Path(folder)]
    if not candidates[0].is_absolute():
        candidates += [parent / folder for parent in near.resolve().parents]
    return next((each for each in candidates if (each / "manifest.json").is_file()), None)


def find_training_data(run: TrainedRun, folders: Sequence[str | Path] = ()) -> tuple[Mixture | None, str]:
    """Find the data a run was trained on and check them against its tables: ``(data, "")`` or ``(None, why)``.

    Args:
        run: the run.
        folders: where the data are now, in the order of the configuration; empty: where the configuration says.
    """
    from bimodal_cl.data import Manifest
    from bimodal_cl.data.shards.mixture import Mixture

    section = run.config.get("data")
    named = section.get("train") if isinstance(section, dict) else None
    places: list[Any] = list(folders) or (named if isinstance(named, list) else [named])
    manifests = []
    for one in places:
        folder: Any = one.get("folder") if isinstance(one, dict) else one
        found = Path(folder) if folders else find_data(run, folder)
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
            return (
                None,
                f"{data} holds {count:,} {kind}s, the run's tables {len(table):,}, so these are not its training data",
            )
    return data, ""


def differs_from_training(run: TrainedRun, data: Mixture) -> bool:
    """Return whether shards have other names, counts or sizes than those of the training, or another order."""
    if run.checkpoint is None:
        return False
    identity = read_state(run.checkpoint).get("identity")
    trained_on = identity.get("data.shards") if isinstance(identity, dict) else None
    return trained_on is not None and trained_on != data.digest


def _by_step(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for _, line in sorted({int(line["step"]): line for line in lines if "step" in line}.items())]


def step_of(checkpoint: Path) -> int:
    """Return the optimizer steps of a checkpoint.

    Raises:
        UserError: it is not a whole checkpoint.
    """
    try:
        return int(read_state(checkpoint)["step"])
    except (KeyError, TypeError):
        raise UserError(f"{checkpoint / STATE_FILE}: no 'step' in it, so this is not a whole checkpoint") from None


def load_tables(checkpoint: Path) -> dict[str, np.ndarray]:
    """Return the loss's arrays of a checkpoint by name; empty where the loss keeps none.

    Raises:
        UserError: the file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = checkpoint / LOSS_FILE
    if not path.is_file():
        return {}
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not readable: {error}") from error
