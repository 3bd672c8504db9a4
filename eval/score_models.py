"""Score every model of a command: load it, score it, write its result, compare the models, and print a table."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .encode import ScoredModel, open_model, resolve_device, result_folder
from .outcomes import write_outcomes
from .results import (
    Scored,
    compare_results,
    describe_intervals,
    format_comparisons,
    format_table,
    make_folder,
    result_path,
    write_result,
)

if TYPE_CHECKING:
    from bimodal_cl.scoring.uncertainty import Resampled


@dataclass(frozen=True)
class Summary:
    """What a command shows of its results on the terminal.

    Attributes:
        before: lines above the table.
        header: the table's columns.
        rows: its rows.
        compared: the scores by which models are compared, with their names in the table.
        after: lines below the table.
    """

    before: Sequence[str]
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    compared: Mapping[str, str]
    after: Sequence[str] = field(default=())


def score_models(
    arguments: argparse.Namespace,
    score: Callable[[ScoredModel], tuple[dict[str, Any], Resampled]],
    summarize: Callable[[list[Scored]], Summary],
) -> list[Scored]:
    """Score every model of a command, write a result for each, and print a table.

    Args:
        arguments: ``models``, ``device``, ``weights``, ``to``, from ``add_model_arguments``.
        score: returns a model's result, ready to be written, and its scores on resamples of the data.
        summarize: returns what the terminal shows of all the models.

    Raises:
        UserError: a model cannot be loaded or scored, or a result cannot be written.
    """
    device = resolve_device(arguments.device)
    scored: list[Scored] = []
    written = []
    for given in arguments.models:
        model = open_model(given, device, arguments.weights)
        folder = result_folder(model, given, arguments.to, arguments.models)
        make_folder(folder)
        result, resampled = score(model)
        result["provenance"]["command"] = arguments.command_line
        write_outcomes(result_path(folder, result), result, resampled.outcomes)
        written.append(write_result(folder, result))
        scored.append(Scored(model.label(given), folder, result, resampled))
    compare_results(scored)
    _show(summarize(scored), scored)
    print(*written, sep="\n")
    return scored


def _show(summary: Summary, scored: list[Scored]) -> None:
    for line in summary.before:
        print(line)
    print(format_table(summary.header, summary.rows))
    print(describe_intervals(scored[-1]))
    if comparisons := format_comparisons(scored, summary.compared):
        print(f"\n{comparisons}\n")
    for line in summary.after:
        print(line)
