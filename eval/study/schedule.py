"""Run what a study lacks: first the runs that tune, then the final ones of the points that these choose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bimodal_cl.cli.progress import format_duration

from ..report.scores import format_metric
from .choice import choose
from .one_run import Job
from .records import Record, Records, scored_on
from .runs import FINAL, Run, Study
from .workers import Workers

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What a study has done and lacks.

    Attributes:
        done: its runs that have a record.
        lacking: its runs that have none.
        unknown: how many final runs wait for a choice, by cell.
    """

    done: list[Run]
    lacking: list[Run]
    unknown: dict[tuple[str, ...], int]

    @property
    def num_lacking(self) -> int:
        """How many runs are yet to be done."""
        return len(self.lacking) + sum(self.unknown.values())


def plan_runs(study: Study, records: Records) -> Plan:
    """Compare a study with its records."""
    runs: list[Run] = []
    unknown = {}
    for cell in study.cells:
        runs += study.tuning(cell)
        choice = choose(study, records, cell)
        if choice.chosen is not None:
            runs += study.finals(cell, choice.chosen)
        elif not choice.done:
            unknown[cell.key] = len(study.settings.final.seeds)
    done = [each for each in runs if records.find(each) is not None]
    return Plan(done, [each for each in runs if records.find(each) is None], unknown)


def estimate_seconds(study: Study, records: Records, plan: Plan, jobs: int) -> float | None:
    """Estimate how long the lacking runs take by those done, of the same setting and stage if there are some.

    Returns:
        Seconds; None where nothing is done yet.
    """
    timed: dict[tuple[str, ...], list[float]] = {}
    for run in plan.done:
        record = records.find(run)
        if record is not None and "val" in record and not record["resumed"]:
            setting = run.cell.key[1:]
            for key in ((run.stage, *setting), setting, ("any",)):
                timed.setdefault(key, []).append(record["seconds"])
    if not timed:
        return None

    def expect(stage: str, setting: tuple[str, ...]) -> float:
        found = timed.get((stage, *setting)) or timed.get(setting) or timed["any",]
        return sum(found) / len(found)

    total = sum(expect(each.stage, each.cell.key[1:]) for each in plan.lacking)
    total += sum(number * expect(FINAL, key[1:]) for key, number in plan.unknown.items())
    return total / jobs


def run_study(study: Study, records: Records, jobs: int, keep_checkpoints: bool, say: Say) -> None:
    """Run what is missing.

    Args:
        study: the study.
        records: of its folder; every run that ends is added.
        jobs: processes that train at the same time.
        keep_checkpoints: whether the newest checkpoint of a run that tunes stays.
        say: prints a line for each run.
    """
    progress = _Progress(study, records, jobs, say)
    with Workers(jobs) as workers:
        while lacking := [each for each in plan_runs(study, records).lacking if not progress.was_stopped(each)]:
            lacking.sort(key=lambda run: run.stage == FINAL)
            # A final run may be one that tunes, so it waits for these.
            stage = [each for each in lacking if each.stage == lacking[0].stage]
            stage = list({(each.recipe, each.seed): each for each in stage}.values())
            todo = [_job(study, each, keep_checkpoints) for each in stage]
            for number, outcome in workers.do(todo):
                progress.end(stage[number], outcome)
    _clear_after_choice(study, records, keep_checkpoints)


def _job(study: Study, run: Run, keep_checkpoints: bool) -> Job:
    test = scored_on(study) if run.stage == FINAL else None
    keep = keep_checkpoints or run.stage == FINAL or study.may_be_final(run)
    return Job(run.config, study.settings.score, test, keep)


def _clear_after_choice(study: Study, records: Records, keep_checkpoints: bool) -> None:
    """Remove the checkpoints of runs that were kept because they could have become final ones."""
    import shutil

    from bimodal_cl.run_folder import RunFolder

    if keep_checkpoints:
        return
    for cell in study.cells:
        chosen = choose(study, records, cell).chosen
        if chosen is None:
            continue
        finals = {each.folder for each in study.finals(cell, chosen)}
        for run in study.tuning(cell):
            if run.folder not in finals:
                shutil.rmtree(RunFolder(run.folder).checkpoints, ignore_errors=True)


class _Progress:
    """Records the runs that end, and prints a line for each."""

    def __init__(self, study: Study, records: Records, jobs: int, say: Say) -> None:
        self._study, self._records, self._jobs, self._say = study, records, jobs, say
        self._stopped: set[tuple[str, int, str]] = set()

    def was_stopped(self, run: Run) -> bool:
        """Return whether a run's process was asked to stop, so that it is left for the next time."""
        return (run.recipe, run.seed, run.stage) in self._stopped

    def end(self, run: Run, outcome: dict[str, Any] | None) -> None:
        """Record what became of a run."""
        if outcome is None:
            self._stopped.add((run.recipe, run.seed, run.stage))
            self._say(f"{run.describe()}: its process was stopped; the same command continues it")
            return
        self._records.append(make_record(self._study, run, outcome))
        plan = plan_runs(self._study, self._records)
        total = len(plan.done) + plan.num_lacking
        left = estimate_seconds(self._study, self._records, plan, self._jobs)
        parts = [_verdict(self._study.settings.score, outcome)]
        parts += [format_duration(outcome["seconds"])] if "seconds" in outcome else []
        parts += [f"{format_duration(left)} left"] if left is not None else []
        self._say(f"{len(plan.done)}/{total}  {run.describe()}: {', '.join(parts)}")


def make_record(study: Study, run: Run, outcome: dict[str, Any]) -> Record:
    """Return the record of a run."""
    return {
        "method": run.cell.method,
        "axes": run.cell.place.labels,
        "point": run.cell.points[run.point],
        "seed": run.seed,
        "stage": run.stage,
        "recipe": run.recipe,
        "folder": str(run.folder.relative_to(study.output)),
        "test_data": scored_on(study) if run.stage == FINAL else None,
        **outcome,
    }


def _verdict(score: str, outcome: dict[str, Any]) -> str:
    if "failed" in outcome:
        return f"FAILED: {outcome['failed']}"
    name = score.rpartition("/")[2]
    text = f"validation {name} {format_metric(name, outcome['val'][score])}"
    if "test" in outcome and name in outcome["test"]:
        text += f", test {format_metric(name, outcome['test'][name])}"
    return text


def list_runs(study: Study, records: Records) -> Iterable[Sequence[str]]:
    """Yield a row for each run: what it is, and whether it is done."""
    plan = plan_runs(study, records)
    for run in [*plan.done, *plan.lacking]:
        record = records.find(run)
        state = "to do" if record is None else "failed" if "failed" in record else "done"
        took = "" if record is None or "seconds" not in record else format_duration(record["seconds"])
        yield run.describe(), state, took
    for key, number in plan.unknown.items():
        yield f"final {', '.join(key)}, point yet to be chosen: {number} seeds", "to do", ""
