"""The work of a worker: a run is trained once and only scored again, and a killed worker is a failed run."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest

from eval.study.one_run import Job, do_run
from eval.study.records import scored_on
from eval.study.workers import _describe_end


def test_a_run_goes_on_from_its_checkpoint_and_is_scored_again(expand_study, capfd):
    study = expand_study()
    run = study.finals(study.cells[0], 0)[0]
    first = do_run(Job(run.config, study.settings.score, None, keep=True))
    assert (first["steps"], first["resumed"]) == (3, False)
    second = do_run(Job(run.config, study.settings.score, scored_on(study), keep=False))
    assert second["resumed"]
    assert second["val"] == first["val"]
    assert second["test"].keys() >= {"rsum"}
    assert not (run.folder / "checkpoints").exists()
    assert "nothing to do: 3 of 3 steps are done" in (run.folder / "output.log").read_text()
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_what_ends_a_run_is_its_reason(expand_study):
    study = expand_study(overrides={"data.train": "nowhere"})
    run = study.finals(study.cells[0], 0)[0]
    assert "nowhere" in do_run(Job(run.config, study.settings.score, None, keep=False))["failed"]
    study = expand_study()
    run = study.finals(study.cells[0], 0)[0]
    assert (
        "no validation score 'zero_shot/acc1'" in do_run(Job(run.config, "zero_shot/acc1", None, keep=False))["failed"]
    )


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (0, None),
        (-signal.SIGTERM, None),
        (-signal.SIGKILL, "was ended by SIGKILL, perhaps for want of memory"),
        (3, "ended with exit status 3"),
    ],
)
def test_a_worker_that_was_killed_has_failed_and_one_that_was_stopped_has_not(code, reason):
    found = _describe_end(SimpleNamespace(join=lambda: None, exitcode=code))
    assert (found is None) if reason is None else reason in found["failed"]
