"""Write results: one JSON file per task, in CLIP_benchmark's schema with further keys, and a table on the terminal."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimodal_cl import __version__
from bimodal_cl.errors import UserError
from bimodal_cl.files.atomic import write_atomically
from bimodal_cl.models.locate.source import AVERAGED

from .encode import ENGLISH, ScoredModel, slug

if TYPE_CHECKING:
    from bimodal_cl.scoring.uncertainty import Resampled

_PACKAGES = ("torch", "open_clip_torch", "timm", "transformers", "webdataset", "numpy", "pillow")


@dataclass(frozen=True)
class Scored:
    """A model's result on one data set.

    Attributes:
        label: the model's name in tables.
        folder: where the result is written.
        result: from :func:`build_result`.
        resampled: its scores on resamples of the data.
    """

    label: str
    folder: Path
    result: dict[str, Any]
    resampled: Resampled


def build_result(
    task: str,
    dataset: str,
    model: ScoredModel,
    metrics: dict[str, float],
    resampled: Resampled,
    data: str,
    counts: dict[str, int],
    provenance: dict[str, Any] | None = None,
    language: str = ENGLISH,
    **more: Any,
) -> dict[str, Any]:
    """Return a task's result.

    Args:
        task: ``"zeroshot_classification"``, ``"zeroshot_retrieval"`` or ``"image_caption_selection"``, as
            CLIP_benchmark calls them.
        dataset: the data set's name.
        model: what was scored.
        metrics: fractions in ``[0, 1]``; names that end in ``_rank`` hold ranks from 1, and ``rsum`` a sum of six
            fractions.
        resampled: the same scores on resamples, for ``intervals``.
        data: path of the data.
        counts: numbers of scored and skipped items, ``num_...``.
        provenance: everything else that is needed to repeat the evaluation.
        language: of the texts, from ``--language``.
        more: keys in addition to CLIP_benchmark's, such as ``per_class``.
    """
    return {
        "dataset": dataset,
        "model": model.name,
        "pretrained": model.pretrained,
        "task": task,
        "metrics": metrics,
        "intervals": resampled.intervals(),
        "language": language,
        "provenance": {
            **model.provenance(),
            "data": data,
            "counts": counts,
            "versions": versions(),
            "intervals": resampled.method(),
            **(provenance or {}),
        },
        **more,
    }


def write_result(folder: Path, result: dict[str, Any]) -> Path:
    """Write ``folder/<task>_<dataset>.json``, whole or not at all; a missing folder is created.

    The name of a result of ``--watch`` ends in ``~step_00001000``, that of averaged weights in ``~ema``, which no data
    set's name does.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    make_folder(folder)
    path = result_path(folder, result)
    write_atomically(path, json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def result_path(folder: Path, result: dict[str, Any]) -> Path:
    """Return the file of a result.

    Its name has marks of the language, other than English, of the step, with ``--watch``, and of averaged weights.
    """
    provenance = result["provenance"]
    language = "" if result["language"] == ENGLISH else f"~{slug(result['language'])}"
    step = f"~step_{provenance['step']:08d}" if "watched" in provenance else ""
    average = f"~{AVERAGED}" if provenance.get("weights") == AVERAGED else ""
    return folder / f"{result['task']}_{slug(result['dataset'])}{language}{step}{average}.json"


def make_folder(folder: Path) -> None:
    """Make a folder for results, tables or figures, before they are computed, so that a mistake shows early.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {folder}: {error.strerror}") from None


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


def compare_results(scored: Sequence[Scored]) -> None:
    """Compare every two models of a call, and write both results again with ``compared``.

    ``compared`` holds for every other model ``with``, its name in tables; ``checkpoint_sha256``; and ``scores``, see
    ``bimodal_cl.scoring.uncertainty.compare``.

    Raises:
        UserError: a result cannot be written.
    """
    from bimodal_cl.scoring.uncertainty import compare

    if len(scored) < 2:
        return
    for one in scored:
        one.result["compared"] = [
            {
                "with": other.label,
                "checkpoint_sha256": other.result["provenance"]["checkpoint_sha256"],
                "scores": compare(one.result["metrics"], other.result["metrics"], one.resampled, other.resampled),
            }
            for other in scored
            if other is not one
        ]
        write_result(one.folder, one.result)


def format_comparisons(scored: Sequence[Scored], columns: Mapping[str, str]) -> str:
    """Return a table of the differences between every two models, for :func:`compare_results`; "" for one model.

    Args:
        scored: the models.
        columns: name in the table of each score to show.
    """
    rows = []
    for first, second in combinations(range(len(scored)), 2):
        compared = scored[first].result["compared"][second - 1]  # itself, before the second, is not in the list
        for name, shown in columns.items():
            if found := compared["scores"].get(name):
                low, high = (f"{100 * end:+.1f}" for end in found["interval"])
                verdict = f"p = {found['p_value']:.3f}" if found["distinguishable"] else "not distinguishable"
                models = f"{scored[first].label} - {scored[second].label}"
                rows.append([f"{models}, {shown}", f"{100 * found['difference']:+.1f}", f"[{low}, {high}]", verdict])
    if not rows:
        return ""
    return format_table(["difference", "points", "95 % interval", "paired bootstrap"], rows)


def describe_intervals(scored: Scored) -> str:
    """Return the line that says what follows ``±`` in a table."""
    method = scored.resampled.method()
    drawn = f"{method['resamples']:,} bootstrap resamples of {method['num_units']:,} {method['unit']}"
    return f"±: half the width of the {100 * method['level']:.0f} % interval ({drawn}); the results hold its ends"


def percent_in_interval(result: dict[str, Any], name: str) -> str:
    """Return a fraction in percent, with half the width of its interval; an empty text where it is missing."""
    value = result["metrics"].get(name)
    return "" if value is None else f"{percent(value)} ± {half_width(result, name)}"


def half_width(result: dict[str, Any], name: str) -> str:
    """Return half the width of a fraction's interval in percent points."""
    low, high = result["intervals"][name]
    return f"{50 * (high - low):.1f}"


def percent(fraction: float | None) -> str:
    """Return a fraction in percent; an empty text for None."""
    return "" if fraction is None else f"{100 * fraction:.1f} %"
