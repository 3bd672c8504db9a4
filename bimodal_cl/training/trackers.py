"""Send a run's values to TensorBoard, W&B, trackio and MLflow, through Accelerate's trackers.

``metrics.jsonl`` is the record of a run, and a tracker is a view of it: a tracker that fails is left out with one
warning, and the training goes on. Which run of a tracker belongs to the folder is in its ``trackers.json``, so that a
resumed training goes on in the same one.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from bimodal_cl.errors import one_line
from bimodal_cl.files.atomic import write_atomically
from bimodal_cl.run_folder import RunFolder

# Without these MLflow waits for a dead server for up to 15 minutes, and meanwhile the other ranks give up.
_MLFLOW_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


class Trackers:
    """The trackers of a run, on the main process; a disabled one does nothing.

    Args:
        names: of ``tensorboard``, ``wandb``, ``trackio``, ``mlflow``.
        project: the project (MLflow: the experiment) that collects the runs.
        run_name: the run's name there.
        folder: the run's folder.
        config: nested values of the config, which every tracker gets by dotted keys.
        enabled: whether this process tracks.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        project: str,
        run_name: str,
        folder: RunFolder,
        config: Mapping[str, Any],
        enabled: bool = True,
    ) -> None:
        self._names = names if enabled else ()
        self._project, self._run_name, self._folder = project, run_name, folder
        self._config = flatten_config(config)
        self._step = 0
        self._trackers: dict[str, GeneralTracker] = {}
        self._closing = ExitStack()

    def start(self, first_step: int) -> None:
        """Open every tracker's run, the one of before where the folder has one, and give it the config.

        Args:
            first_step: optimizer steps done before; 0 for a new run.
        """
        self._step = first_step
        for name in self._names:
            self._attempt(name, partial(self._open, name))

    def log(self, line: Mapping[str, Any]) -> None:
        """Send a line of ``metrics.jsonl``: the numbers of training steps and evaluations."""
        values = name_values(line)
        self._step = line.get("step", self._step)
        if values:
            for name, tracker in [*self._trackers.items()]:
                named = (
                    {_allowed_by_mlflow(key): value for key, value in values.items()} if name == "mlflow" else values
                )
                self._attempt(name, partial(tracker.log, named, step=self._step))

    def finish(self) -> None:
        """Close every tracker's run."""
        for name, tracker in [*self._trackers.items()]:
            self._attempt(name, tracker.finish)
        self._trackers.clear()
        self._closing.close()

    def _attempt(self, name: str, act: Callable[[], None]) -> None:
        """Do something with a tracker; one that fails is left out from then on."""
        try:
            act()
        except Exception as error:  # of a package or of its server: whatever it is, the training goes on
            self._trackers.pop(name, None)
            warnings.warn(
                f"tracking.trackers: {name} failed at step {self._step} and gets no more values: {one_line(error)}; "
                f"the run goes on, and {self._folder.metrics} has them all",
                stacklevel=3,
            )

    def _open(self, name: str) -> None:
        known = self._read_ids().get(name)
        tracker, given = getattr(self, f"_build_{name}")(known)
        tracker.start()
        self._trackers[name] = tracker
        if name == "mlflow":
            given = {**given, "id": tracker.tracker.info.run_id}
        if known != given:
            ids = {**self._read_ids(), name: given}
            write_atomically(self._folder.trackers, json.dumps(ids, indent=2) + "\n")
            if name != "trackio":  # has it already
                tracker.store_init_configuration(self._config)

    def _read_ids(self) -> dict[str, Any]:
        """Return what identifies the run of each tracker that was opened before."""
        try:
            ids = json.loads(self._folder.trackers.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return ids if isinstance(ids, dict) else {}

    def _build_tensorboard(self, known: Any) -> tuple[GeneralTracker, Any]:
        folder = str(self._folder.path.absolute())
        purge = {"purge_step": self._step + 1}  # what came after the checkpoint
        return LOGGER_TYPE_TO_CLASS["tensorboard"]("tensorboard", folder, **purge), {"folder": "tensorboard"}

    def _build_wandb(self, known: Any) -> tuple[GeneralTracker, Any]:
        ours = isinstance(known, dict) and known.get("project") == self._project
        given = known if ours else {"project": self._project, "id": secrets.token_hex(8)}
        where = {} if "WANDB_DIR" in os.environ else {"dir": str(self._folder.path.absolute())}
        options = {"id": given["id"], "name": self._run_name, "resume": "allow", **where}
        return LOGGER_TYPE_TO_CLASS["wandb"](self._project, **options), given

    def _build_trackio(self, known: Any) -> tuple[GeneralTracker, Any]:
        ours = isinstance(known, dict) and known.get("project") == self._project
        given = known if ours else {"project": self._project, "name": f"{self._run_name}-{secrets.token_hex(2)}"}
        options = {"name": given["name"], "resume": "allow", "config": self._config}
        return LOGGER_TYPE_TO_CLASS["trackio"](self._project, **options), given

    def _build_mlflow(self, known: Any) -> tuple[GeneralTracker, Any]:
        for name, value in _MLFLOW_PATIENCE.items():
            os.environ.setdefault(name, value)
        import mlflow

        artifacts, store = None, ""
        if mlflow.is_tracking_uri_set():
            store = _without_password(mlflow.get_tracking_uri())
        else:
            folder = self._folder.path.absolute()
            mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
            self._closing.callback(mlflow.set_tracking_uri, None)  # another run of this process has its own
            artifacts = (folder / "mlflow_artifacts").as_uri()
        given = {"project": self._project, "store": store}
        same = isinstance(known, dict) and given == {key: known.get(key) for key in given}
        options = {"logging_dir": artifacts, "run_name": self._run_name, "run_id": known["id"] if same else None}
        return LOGGER_TYPE_TO_CLASS["mlflow"](self._project, **options), given


def name_values(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a line of ``metrics.jsonl`` by the names that trackers show, such as ``train/loss``.

    Lines of ``train`` and ``evaluate`` have numbers. Their step is the tracker's own axis, and not one of them.
    """
    event = line.get("event")
    left_out = {"train": ("step",), "evaluate": ("step", "epoch")}.get(str(event))
    if left_out is None:
        return {}
    return {
        f"{event}/{name}": value
        for name, value in line.items()
        if name not in left_out and isinstance(value, int | float) and not isinstance(value, bool)
    }


def flatten_config(values: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Return nested values by dotted keys; lists and null, which some trackers do not take, become text."""
    flat: dict[str, bool | int | float | str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten_config(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, bool | int | float | str) else json.dumps(value)
    return flat


def _allowed_by_mlflow(name: str) -> str:
    return re.sub(r"[^\w./ -]", "_", name.replace("@", "_at_"))


def _without_password(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri)
