"""Name the files of a run's folder, find its checkpoints, and read its config, log and results.

    config.yaml                   the resolved config
    metrics.jsonl                 the log, one JSON object a line
    trackers.json                 which run of each tracker this is, where there are trackers
    checkpoints/step_00001000/    one checkpoint: see bimodal_cl.checkpoint
    checkpoints/latest, best      links to checkpoints
    results/*.json                scores by bimodal-eval
    temperature_summary.json      by bimodal-eval temperatures
    report.html                   by bimodal-eval report

Training writes it, evaluation and models read it. Nothing here imports torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.checksums import find_damage
from bimodal_cl.files.text_files import NotText, decode_text, read_text

LATEST, BEST = "latest", "best"
STATE_FILE, LOSS_FILE, OPTIMIZER_FILE = "state.json", "loss.safetensors", "optimizer.pt"
PARTIAL, REPLACED = ".partial", ".replaced.partial"  # end the names of checkpoints that are written and replaced


@dataclass(frozen=True)
class RunFolder:
    """The paths and the content of a run's folder.

    Args:
        path: the run's folder; it need not exist yet.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config; a folder that has one is a run."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """The log."""
        return self.path / "metrics.jsonl"

    @property
    def trackers(self) -> Path:
        """Which run of each tracker belongs to this one."""
        return self.path / "trackers.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints and of the links to them."""
        return self.path / "checkpoints"

    @property
    def results(self) -> Path:
        """The folder of the scores."""
        return self.path / "results"

    @property
    def report(self) -> Path:
        """The page that ``bimodal-eval report`` writes."""
        return self.path / "report.html"

    @property
    def temperatures(self) -> Path:
        """What ``bimodal-eval temperatures`` measured of the learned temperatures."""
        return self.path / "temperature_summary.json"

    def checkpoint(self, step: int) -> Path:
        """Return the folder of the checkpoint after ``step`` optimizer steps."""
        return self.checkpoints / f"step_{step:08d}"

    def list_checkpoints(self, holding: str = STATE_FILE) -> list[Path]:
        """Return the whole checkpoints, oldest first.

        Args:
            holding: a file that a whole checkpoint has.
        """
        found = [path for path in self.checkpoints.glob("step_*") if re.fullmatch(r"step_\d+", path.name)]
        return sorted(path for path in found if (path / holding).is_file())

    def newest_checkpoint(self, holding: str = STATE_FILE) -> Path | None:
        """Return the newest whole checkpoint, or None where there is none yet.

        It is the one that ``latest`` points to. The link moves on while a run trains, so the folder itself is returned.
        A copy without links has no ``latest``, and a crash may leave it pointing to a folder that is gone; then it is
        the whole checkpoint of the highest step.

        Args:
            holding: a file that a whole checkpoint has.
        """
        latest = self.checkpoints / LATEST
        if (latest / holding).is_file():
            target = latest.resolve()
            sibling = latest.with_name(target.name)
            return sibling if sibling.is_dir() else target
        return next(reversed(self.list_checkpoints(holding)), None)

    def find_checkpoint(self, name: str) -> Path | None:
        """Return the checkpoint ``latest``, ``best``, ``step_N`` or a path; None where there is no ``latest`` yet.

        Raises:
            UserError: no such checkpoint, or a file of it is damaged; the message offers the whole one before it.
        """
        candidate = self.checkpoints / name if (self.checkpoints / name).exists() else Path(name)
        if (candidate / STATE_FILE).is_file():
            return self._require_whole(candidate.resolve())
        if name == LATEST:
            newest = self.newest_checkpoint()
            return None if newest is None else self._require_whole(newest.resolve())
        known = [LATEST, *(path.name for path in self.list_checkpoints())]
        raise UserError(f"--resume: no checkpoint '{name}' in {self.checkpoints}{did_you_mean(name, known)}")

    def _require_whole(self, checkpoint: Path) -> Path:
        damage = find_damage(checkpoint)
        if damage is None:
            return checkpoint
        others = [path for path in self.list_checkpoints() if path.name < checkpoint.name]
        whole = next((path for path in reversed(others) if find_damage(path) is None), None)
        offer = "no other checkpoint before it is whole" if whole is None else f"continue with --resume {whole.name}"
        raise UserError(f"checkpoint {checkpoint}: {damage}; {offer}")

    def read_config(self) -> dict[str, Any]:
        """Return the values of ``config.yaml``, which a newer or older version may have written.

        Raises:
            UserError: the file is missing or damaged, or is not a run's config.
        """
        if not self.config.is_file():
            raise UserError(f"{self.path}: no {self.config.name}, so this is not a run's folder")
        try:
            config = yaml.safe_load(read_text(self.config))
        except (yaml.YAMLError, NotText) as error:
            raise UserError(f"{self.config}: not readable as YAML: {' '.join(str(error).split())}") from error
        if not isinstance(config, dict) or not isinstance(config.get("loss"), dict) or "name" not in config["loss"]:
            raise UserError(f"{self.config}: no loss.name, so this is not a run's configuration")
        return config

    def read_log(self) -> Iterator[dict[str, Any]]:
        """Yield the log's lines; a last line that a crash cut short is left out.

        Raises:
            UserError: there is no log yet, or a line is not JSON.
        """
        if not self.metrics.is_file():
            raise UserError(f"{self.path}: no {self.metrics.name}; the run has not logged a step yet")
        lines = decode_text(self.metrics.read_bytes(), "replace").splitlines()
        for number, text in enumerate(lines, start=1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except json.JSONDecodeError as error:
                if number == len(lines):
                    return
                raise UserError(f"{self.metrics}: line {number} is not JSON: {error.msg}") from error
            if not isinstance(line, dict):
                raise UserError(f"{self.metrics}: line {number} is not a mapping")
            yield line

    def read_results(self) -> list[dict[str, Any]]:
        """Return the run's scores, see :func:`read_results`."""
        return read_results(self.results)


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Return the scores of all result files of a folder, each with its file name under ``"file"``.

    Raises:
        UserError: a file is not JSON, or has no metrics.
    """
    results = []
    for path in sorted(folder.glob("*.json")):
        try:
            result = json.loads(read_text(path))
        except ValueError as error:
            raise UserError(f"{path}: not readable as JSON: {error}") from error
        if not isinstance(result, dict) or not isinstance(result.get("metrics"), dict):
            raise UserError(f"{path}: no 'metrics', so this is not a result of an evaluation")
        results.append({**result, "file": path.name})
    return results


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return a checkpoint's ``state.json``: ``step``, ``epoch``, ``samples_seen`` and what a resumed run must share.

    Raises:
        UserError: it cannot be read.
    """
    try:
        state: dict[str, Any] = json.loads(read_text(checkpoint / STATE_FILE))
    except (OSError, ValueError) as error:
        raise UserError(f"checkpoint {checkpoint}: {STATE_FILE} cannot be read: {error}") from None
    return state
