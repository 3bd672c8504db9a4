"""Read what is compared: runs, with their logs and tables, and folders of results of any models."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.models.locate.source import AVERAGED
from bimodal_cl.run_folder import RunFolder, read_results

from ...outcomes import read_outcomes
from ...trained_run import TrainedRun, load_run
from ..scores import dataset_in_language, is_of_step

if TYPE_CHECKING:
    from bimodal_cl.scoring.uncertainty import Resampled


@dataclass(frozen=True)
class ResultFile:
    """A result and its file."""

    path: Path
    content: dict[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """The task and the data set, with its language where that is not English."""
        return str(self.content.get("task", "")), dataset_in_language(self.content)

    @property
    def provenance(self) -> dict[str, Any]:
        """What is recorded about the evaluation; empty in results of other programs."""
        found = self.content.get("provenance")
        return found if isinstance(found, dict) else {}

    @property
    def averaged(self) -> bool:
        """Whether the averaged weights were scored."""
        return self.provenance.get("weights") == AVERAGED

    @property
    def of_step(self) -> bool:
        """Whether it is one of a series of results over the training, whose names say the step."""
        return is_of_step(self.path.name)

    @property
    def scores(self) -> dict[str, float]:
        """The scores that are numbers."""
        return {
            name: float(value)
            for name, value in self.content["metrics"].items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }

    @cached_property
    def resampled(self) -> Resampled | None:
        """The scores on resamples of the data, from the outcomes beside the file; None where there are none."""
        from bimodal_cl.scoring.uncertainty import resample_outcomes

        outcomes = read_outcomes(self.path, self.content)
        try:
            return None if outcomes is None else resample_outcomes(outcomes)
        except ValueError:  # of a newer version
            return None


@dataclass(frozen=True)
class Member:
    """A run, or the results of a model.

    Attributes:
        name: what it is called where it stands alone.
        path: the folder that was given.
        results: its results.
        run: the run; None for a folder of results.
    """

    name: str
    path: Path
    results: list[ResultFile]
    run: TrainedRun | None = None


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run's, even one that lacks a file; a folder of results is not."""
    run = RunFolder(folder)
    return any(each.exists() for each in (run.config, run.metrics, run.checkpoints))


def load_members(path: str) -> list[Member]:
    """Read a run's folder, or a folder of results; a folder of such folders has a member for each.

    Raises:
        UserError: there is neither a run nor a result, or a file cannot be read.
    """
    folder = Path(path)
    if not folder.is_dir():
        near = [each.name for each in folder.parent.iterdir() if each.is_dir()] if folder.parent.is_dir() else []
        raise UserError(f"{path}: no such folder{did_you_mean(folder.name, near)}")
    if is_run(folder):
        run = load_run(path)
        files = [ResultFile(run.folder.results / each["file"], each) for each in run.results]
        return [Member(folder.resolve().name, folder, files, run)]
    found = _members_of_results(folder)
    for each in sorted(folder.iterdir()) if not found else []:
        if each.is_dir() and not is_run(each):
            found += _members_of_results(each)
    if not found:
        raise UserError(f"{path}: neither a run's folder (no config.yaml) nor a folder of results (no *.json)")
    return found


def _members_of_results(folder: Path) -> list[Member]:
    """Return a member for each model of which the folder holds results."""
    by_model: dict[tuple[str, str], list[ResultFile]] = {}
    for content in read_results(folder):
        model = str(content.get("model", "")), str(content.get("pretrained", ""))
        by_model.setdefault(model, []).append(ResultFile(folder / content["file"], content))
    if len(by_model) == 1:
        return [Member(folder.resolve().name, folder, files) for files in by_model.values()]
    return [Member(" ".join(filter(None, model)) or folder.name, folder, files) for model, files in by_model.items()]
