"""Score every model of a command: load it, score it, write its result, compare the models, and print a table."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from bimodal_cl.cli.processes import is_main_process
from bimodal_cl.cli.progress import note
from bimodal_cl.errors import UserError
from bimodal_cl.models.locate.names import locate_model

from .encode import ScoredModel, open_model, resolve_device, result_folder
from .outcomes import write_outcomes
from .results import (
    Scored,
    compare_results,
    describe_intervals,
    format_comparisons,
    format_table,
    make_folder,
    percent_in_interval,
    result_path,
    write_result,
)
from .watch import hash_task, is_scored, new_checkpoints, require_run

if TYPE_CHECKING:
    import torch

    from bimodal_cl.scoring.uncertainty import Resampled

# Scores features that are encoded already.
Score: TypeAlias = "Callable[[], tuple[dict[str, Any], Resampled]]"


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
    encode: Callable[[ScoredModel], Score],
    summarize: Callable[[list[Scored]], Summary],
    hash_data: Callable[[], str | None] | None = None,
) -> list[Scored]:
    """Score every model of a command, or every checkpoint of a run; write a result for each, and print a table.

    Several processes encode together. The main one alone scores and writes, and returns something.

    Args:
        arguments: ``models``, ``device``, ``weights``, ``to``, ``watch``, from ``add_model_arguments``.
        encode: encodes the data with a model, and returns how to score its features: a function that returns the
            model's result, ready to be written, and its scores on resamples of the data. Every process calls
            ``encode``; the main process alone calls what it returns.
        summarize: returns what the terminal shows of all the models.
        hash_data: identifies the data by their content, so that ``--watch`` scores a checkpoint again on other data.

    Raises:
        UserError: a model cannot be loaded or scored, or a result cannot be written.
    """
    device = resolve_device(arguments.device)
    if arguments.watch:
        return _score_run(arguments, device, encode, summarize, hash_data)
    # Before the first is scored, so that a mistake in the last one shows early.
    folders: dict[Path, str] = {}
    for given in arguments.models:
        run = locate_model(given, "MODEL", arguments.weights).run
        folder = result_folder(run, given, arguments.to, arguments.models)
        if folder in folders:
            raise UserError(f"MODEL '{given}' is '{folders[folder]}' again: both have their results in {folder}")
        folders[folder] = given
    scored: list[Scored] = []
    for folder, given in folders.items():
        model = open_model(given, device, arguments.weights, _heads_alone(arguments))
        scored += _score_model(arguments, model, model.label(given), folder, encode)
    if not is_main_process():
        return []
    compare_results(scored)
    _show(summarize(scored), scored)
    print(*(result_path(one.folder, one.result) for one in scored), sep="\n")
    return scored


def _score_model(
    arguments: argparse.Namespace,
    model: ScoredModel,
    label: str,
    folder: Path,
    encode: Callable[[ScoredModel], Score],
    **provenance: str,
) -> list[Scored]:
    """Score a model and write its result; the list is empty on all processes but the main one."""
    if is_main_process():
        make_folder(folder)
    score = encode(model)
    if not is_main_process():
        return []
    result, resampled = score()
    result["provenance"] |= {"command": arguments.command_line, **provenance}
    if model.features:
        result["provenance"]["features"] = model.features
    write_outcomes(result_path(folder, result), result, resampled.outcomes)
    write_result(folder, result)
    return [Scored(label, folder, result, resampled)]


def _score_run(
    arguments: argparse.Namespace,
    device: torch.device,
    encode: Callable[[ScoredModel], Score],
    summarize: Callable[[list[Scored]], Summary],
    hash_data: Callable[[], str | None] | None,
) -> list[Scored]:
    """Score each checkpoint of a run when it appears, unless it is scored already, and print a row for it."""
    from bimodal_cl.distributed import gather_objects

    run = require_run(arguments.models, arguments.weights)
    folder = run.results if arguments.to is None else Path(arguments.to)
    task = gather_objects(hash_task(arguments, hash_data) if is_main_process() else "")[0]
    note(f"watching {run.path} until it is finished; Ctrl-C ends this before")
    scored: list[Scored] = []
    for checkpoint in new_checkpoints(run, arguments.weights):
        if gather_objects(is_main_process() and is_scored(folder, task, checkpoint, arguments.weights))[0]:
            note(f"{checkpoint.name}: scored before")
            continue
        model: ScoredModel | None = None
        try:
            model = open_model(str(checkpoint), device, arguments.weights, _heads_alone(arguments))
        except (UserError, OSError):
            if checkpoint.is_dir():
                raise
        there = all(gather_objects(model is not None))  # another process may have come too late
        if model is None or not there:
            note(f"{checkpoint.name}: removed by the training before it was scored (checkpoint.keep_last)")
            continue
        step = int(checkpoint.name.removeprefix("step_"))
        model = replace(model, run=run.path, step=step)
        scored += _score_model(arguments, model, f"step {step:,}", folder, encode, watched=task)
        if is_main_process():
            print(_one_row(scored[-1], summarize(scored[-1:])), flush=True)
    if is_main_process():
        print(f"{run.path} is finished; {len(scored)} of its checkpoints were scored now; results in {folder}")
    return scored


def _heads_alone(arguments: argparse.Namespace) -> bool:
    """Return whether the command scores features that are encoded already."""
    return getattr(arguments, "features", None) is not None


def _one_row(scored: Scored, summary: Summary) -> str:
    """Return the main scores of a model in a line."""
    found = {shown: percent_in_interval(scored.result, name) for name, shown in summary.compared.items()}
    return "  ".join([scored.label, *(f"{shown} {value}" for shown, value in found.items() if value)])


def _show(summary: Summary, scored: list[Scored]) -> None:
    for line in summary.before:
        print(line)
    print(format_table(summary.header, summary.rows))
    print(describe_intervals(scored[-1]))
    if comparisons := format_comparisons(scored, summary.compared):
        print(f"\n{comparisons}\n")
    for line in summary.after:
        print(line)
