"""Train one run of a study, score it, and say what became of it: the work of a worker process."""

from __future__ import annotations

import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bimodal_cl.cli.exit_status import warnings_as_lines
from bimodal_cl.config.schema import Config
from bimodal_cl.errors import RunStopped, UserError, one_line
from bimodal_cl.run_folder import RunFolder, read_results

from ..results import versions
from .records import waiting_for

LOG = "output.log"
_RETRIEVAL = "zeroshot_retrieval"
_NOT_LOGGED_BY_THE_LOSS = ("event", "step", "epoch", "time", "samples_seen")


@dataclass(frozen=True)
class Job:
    """A run to do.

    Attributes:
        config: of the training.
        score: the validation score that it must have.
        test: ``data``, ``split`` and, where there are some, ``features`` to score it on; None: no test.
        keep: whether its newest checkpoint stays.
    """

    config: Config
    score: str
    test: Mapping[str, Any] | None
    keep: bool


def do_run(job: Job) -> dict[str, Any] | None:
    """Train, or go on training, and score; what it prints goes to ``output.log`` in the run's folder.

    Returns:
        The part of the record that the work gives: scores, or ``failed`` with the reason; None where a signal has
        stopped the run, whose state is saved.
    """
    run = RunFolder(Path(job.config.output))
    begin = time.monotonic()
    resumed = False
    with waiting_for(run.path), _output_to(run.path / LOG):
        try:
            resumed = run.newest_checkpoint() is not None
            if not _train(job.config):
                return None
            found = {**_read_log(run, job.score), **({} if job.test is None else _score(run, job.test, job.score))}
            _clear(run, job.keep)
        except (UserError, RunStopped) as error:
            found = {"failed": one_line(error)}
        except Exception as error:
            traceback.print_exc()
            found = {"failed": f"{type(error).__name__}: {one_line(error)}"}
    return {
        **found,
        "seconds": round(time.monotonic() - begin, 2),
        "resumed": resumed,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
    }


def _train(config: Config) -> bool:
    """Train, and return whether the run came to its end."""
    from bimodal_cl.train import Trainer

    trainer = Trainer(config, resume="latest")
    trainer.run()
    return trainer.stopped_by is None


def _read_log(run: RunFolder, score: str) -> dict[str, Any]:
    """Return the last validation scores of a run, and what it logged last.

    Raises:
        RunStopped: the score is missing.
    """
    lines = list(run.read_log())
    evaluated = [line for line in lines if line.get("event") == "evaluate"]
    trained = [line for line in lines if line.get("event") == "train"]
    last = evaluated[-1] if evaluated else {}
    val = {name: value for name, value in last.items() if "/" in name}
    if not isinstance(val.get(score), (int, float)):
        why = last.get("error") or f"it has {', '.join(val) or 'none'}"
        raise RunStopped(f"no validation score '{score}' at the end: {why}")
    log = trained[-1] if trained else {}
    return {
        "steps": last["step"],
        "val": val,
        "log": {name: value for name, value in log.items() if name not in _NOT_LOGGED_BY_THE_LOSS},
    }


def _score(run: RunFolder, test: Mapping[str, Any], score: str) -> dict[str, Any]:
    """Score a run's newest checkpoint as ``bimodal-eval retrieval`` does, and return its scores.

    They are of the weights that the validation score is of: the averaged ones where it begins with ``ema/``.
    """
    from ..cli import COMMANDS

    words = ["retrieval", str(run.path), "--data", str(test["data"]), "--split", str(test["split"])]
    words += ["--features", str(test["features"])] if "features" in test else []
    words += ["--weights", "ema"] if score.startswith("ema/") else []
    found = COMMANDS.parse("bimodal-eval", words)
    assert found is not None, "parse returns None for --print-config alone"
    begin = time.time()
    found[0].run(found[1])
    new = [
        each
        for each in read_results(run.results)
        if each.get("task") == _RETRIEVAL and (run.results / each["file"]).stat().st_mtime >= begin - 1
    ]
    result = new[-1]
    return {
        "test": result["metrics"],
        "test_intervals": result["intervals"],
        "result": str(Path(run.results.name) / result["file"]),
    }


def _clear(run: RunFolder, keep: bool) -> None:
    """Remove the checkpoints; or all but the newest and the best one."""
    if not keep:
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        return
    best = (run.checkpoints / "best").resolve()
    for each in run.list_checkpoints()[:-1]:
        if each.resolve() != best:
            shutil.rmtree(each, ignore_errors=True)


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Append what the process prints to a file, also what libraries print past Python."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    try:
        with path.open("a", buffering=1, encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            with redirect_stdout(file), redirect_stderr(file), warnings_as_lines():
                yield
    finally:
        for number, each in enumerate(before, start=1):
            os.dup2(each, number)
            os.close(each)
