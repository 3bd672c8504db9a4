"""Write results: one JSON file per task, in CLIP_benchmark's schema with further keys, and a table on the terminal."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bimodal_cl import __version__
from bimodal_cl.errors import UserError
from bimodal_cl.files.atomic import write_atomically
from bimodal_cl.models.locate.source import AVERAGED

from .encode import ScoredModel, slug

_PACKAGES = ("torch", "open_clip_torch", "timm", "transformers", "webdataset", "numpy", "pillow")


def build_result(
    task: str,
    dataset: str,
    model: ScoredModel,
    metrics: dict[str, float],
    data: str,
    counts: dict[str, int],
    provenance: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return a task's result.

    Args:
        task: ``"zeroshot_classification"`` or ``"zeroshot_retrieval"``, as CLIP_benchmark calls them.
        dataset: the data set's name.
        model: what was scored.
        metrics: fractions in ``[0, 1]``; names that end in ``_rank`` hold ranks from 1, and ``rsum`` a sum of six
            fractions.
        data: path of the data.
        counts: numbers of scored and skipped items, ``num_...``.
        provenance: everything else that is needed to repeat the evaluation.
        more: keys in addition to CLIP_benchmark's, such as ``per_class``.
    """
    return {
        "dataset": dataset,
        "model": model.name,
        "pretrained": model.pretrained,
        "task": task,
        "metrics": metrics,
        "language": "en",
        "provenance": {
            **model.provenance(),
            "data": data,
            "counts": counts,
            "versions": versions(),
            **(provenance or {}),
        },
        **more,
    }


def write_result(folder: Path, result: dict[str, Any]) -> Path:
    """Write ``folder/<task>_<dataset>.json``, whole or not at all; a missing folder is created.

    The name of a result of averaged weights ends in ``~ema``, which no data set's name does.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    make_folder(folder)
    average = f"~{AVERAGED}" if result["provenance"].get("weights") == AVERAGED else ""
    path = folder / f"{result['task']}_{slug(result['dataset'])}{average}.json"
    write_atomically(path, json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def make_folder(folder: Path) -> None:
    """Make the folder for results; called before the model is scored, so that a mistake shows early.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the results folder {folder}: {error.strerror}") from None


def versions() -> dict[str, str]:
    """Return the versions of the packages that scores depend on."""
    installed = {package: version(package) for package in _PACKAGES}
    return {"bimodal_cl": __version__, "python": platform.python_version(), **installed}


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as text: the first column aligned left, the others right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def percent(fraction: float | None) -> str:
    """Return a fraction in percent; an empty text for None."""
    return "" if fraction is None else f"{100 * fraction:.1f} %"
