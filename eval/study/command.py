"""Run a study from its YAML file: tune every method on validation data, train the chosen settings with several seeds.

Runs that are done are kept, so the same command goes on after an interrupt. The tables, figures and the page study.html
are written again at the end.
"""

from __future__ import annotations

import argparse
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from bimodal_cl.cli.arguments import positive_integer
from bimodal_cl.cli.exit_status import EXIT_FAILURE, EXIT_SUCCESS
from bimodal_cl.cli.parser import Parser
from bimodal_cl.cli.progress import format_duration, note
from bimodal_cl.errors import UserError

if TYPE_CHECKING:
    from .records import Records
    from .runs import Study


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ``bimodal-eval study``."""
    parser.add_argument("study", metavar="FILE", type=Path, help="the study as YAML; see configs/study")
    parser.add_argument("--to", metavar="DIR", type=Path, help="the study's folder (default: output in the file)")
    parser.add_argument(
        "--jobs", type=positive_integer, help="processes that train at the same time, each with one thread"
    )
    parser.add_argument("--only", metavar="METHOD", nargs="+", help="the methods to run (default: all)")
    parser.add_argument("--list", action="store_true", help="list the runs with their number and time, and stop")
    parser.add_argument("--render", action="store_true", help="write tables, figures and page of what is done")
    parser.add_argument("--retry-failed", action="store_true", help="do the runs that failed again")
    parser.add_argument(
        "--keep-checkpoints", action="store_true", help="keep the newest checkpoint of the runs that tune as well"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run what is missing, and write what was found.

    Raises:
        UserError: a mistake in the file or in the config of one of its runs.
    """
    from .findings.comparisons import find_pairs
    from .records import Records, locked_study, scored_on
    from .runs import expand
    from .settings import read_study

    settings = read_study(arguments.study)
    whole = expand(settings, arguments.study, arguments.to or Path(settings.output))
    study = whole.only(arguments.only or list(settings.methods))
    find_pairs(whole)  # refuses those that name no method
    jobs = arguments.jobs or settings.jobs
    if arguments.list or arguments.render:
        records = Records(study.output, scored_on(study))
        if arguments.list:
            return _list(study, records, jobs)
        if not records.path.is_file():
            raise UserError(f"--render: {study.output} holds no runs yet")
        return _render(whole, study, records)
    _check_data(study)
    for line in study.notes:
        warnings.warn(line, stacklevel=2)
    with locked_study(study.output):
        records = Records(study.output, scored_on(study))
        _run(study, records, jobs, arguments)
        return _render(whole, study, records)


def _check_data(study: Study) -> None:
    """Refuse missing data and an unknown score before anything starts."""
    from bimodal_cl.config.checks import check_best
    from bimodal_cl.data import Manifest
    from bimodal_cl.data.features.manifest import find_features
    from bimodal_cl.scoring.retrieval import retrieval_scores

    from ..pair_shards import open_pairs

    configs = [config for config, _ in study.recipes.values()]
    sets = {
        (folder, config.data.features): None
        for config in configs
        for folder in [*(one.folder for one in config.data.train), config.data.val]
        if folder is not None
    }
    score, test = study.settings.score, study.settings.test
    try:
        for folder, features in sets:
            manifest = Manifest.load(folder)
            if features is not None:
                find_features(Path(features), [manifest], "data.features")
        for config in configs:
            names = [f"retrieval/{name}" for name in retrieval_scores()] if config.data.val is not None else []
            if config.data.zero_shot is not None and score.removeprefix("ema/").startswith("zero_shot/"):
                continue  # which scores there are depends on the data
            check_best(score, names, averaged=config.ema.decay is not None and config.ema.evaluate)
        if test is not None:
            pairs = open_pairs(Path(test.data), test.split)
            if test.features is not None:
                find_features(Path(test.features), [pairs], "test.features")
    except UserError as error:
        raise UserError(f"{study.path}: {str(error).replace('checkpoint.best', 'score')}") from None


def _list(study: Study, records: Records, jobs: int) -> int:
    from ..results import format_table
    from .schedule import estimate_seconds, list_runs, plan_runs

    plan = plan_runs(study, records)
    print(format_table(["run", "state", "time"], [list(each) for each in list_runs(study, records)]))
    left = estimate_seconds(study, records, plan, jobs)
    time = "" if left is None or not plan.num_lacking else f", about {format_duration(left)} with {jobs} at a time"
    print(f"{len(plan.done)} runs are done, {plan.num_lacking} are to do{time}")
    return EXIT_SUCCESS


def _run(study: Study, records: Records, jobs: int, arguments: argparse.Namespace) -> None:
    from .schedule import plan_runs, run_study

    if arguments.retry_failed:
        records.forget_failures()
    plan = plan_runs(study, records)
    note(f"{study.path}: {len(plan.done)} runs are done, {plan.num_lacking} are to do, {jobs} at a time")
    with _terminated_as_interrupted():
        try:
            run_study(study, records, jobs, arguments.keep_checkpoints, note)
        except KeyboardInterrupt:
            note("stopped; the runs under way are saved, and the same command continues the study")
            raise


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end the study as Ctrl-C does: the runs under way save their state."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _render(whole: Study, study: Study, records: Records) -> int:
    """Write what was found of the whole study, print the paths, and return the status of the part that was asked for.

    It is a failure where a method has no final score at a setting.
    """
    from .findings.render import write_study
    from .findings.tables import collect_findings

    findings = collect_findings(whole, records)
    for path in write_study(findings, records):
        print(path)
    asked = {each.key for each in study.cells}
    return EXIT_SUCCESS if all(each.records for each in findings.cells if each.cell.key in asked) else EXIT_FAILURE
