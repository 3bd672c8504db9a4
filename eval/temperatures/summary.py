"""Keep what a run's temperatures show beside the run, in ``temperature_summary.json``, for its report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bimodal_cl.errors import UserError
from bimodal_cl.files.atomic import write_atomically
from bimodal_cl.files.text_files import read_text

from ..trained_run import TrainedRun
from .learned import LearnedTemperatures
from .neighbours import Neighbours


def write_summary(
    run: TrainedRun,
    temperatures: Mapping[str, LearnedTemperatures],
    neighbours: Mapping[str, Neighbours],
    measures: Mapping[str, Any],
    command: str,
) -> str:
    """Write ``RUN/temperature_summary.json`` and return its path, or why there is none.

    Args:
        run: the run.
        temperatures: of images ("image") and texts ("text").
        neighbours: of a sample of both; empty where none were counted.
        measures: percentiles by checkpoint, and correlations.
        command: that measured them.
    """
    content = {
        "loss": run.loss["name"],
        "step": run.step,
        "provenance": {"command": command, "checkpoint": str(run.checkpoint)},
        "quantiles": {kind: list(each.quantiles().items()) for kind, each in temperatures.items()},
        **measures,
        "neighbours": {
            kind: {
                "num_neighbours": each.count.tolist(),
                "tau": [float(f"{tau:.6g}") for tau in temperatures[kind].by_id()[each.ids]],
            }
            for kind, each in neighbours.items()
        },
    }
    try:
        write_atomically(run.folder.temperatures, json.dumps(content, allow_nan=False) + "\n")
    except (UserError, OSError) as error:
        return f"not kept for the report: {error}"
    return f"kept for the report: {run.folder.temperatures}"


def read_summary(run: TrainedRun) -> dict[str, Any] | None:
    """Return the summary of the run's newest checkpoint; None where it was not measured."""
    path = run.folder.temperatures
    try:
        found = json.loads(read_text(path)) if path.is_file() else None
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from error
    return found if isinstance(found, dict) and found.get("step") == run.step else None
