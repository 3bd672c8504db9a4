"""``--profile-steps`` prints where a step's time goes, writes a trace of each process, and leaves no run behind."""

from __future__ import annotations

import json
import time

import pytest

from bimodal_cl.training.speed.step_parts import BACKWARD, FORWARD, PARTS, REST, StepClock, part
from tests.test_training.processes.launching import launch

NAMES = set(PARTS)


def test_a_profile_prints_a_table_and_writes_a_trace(run_training, capsys):
    run = run_training("run", "--profile-steps", "2", train={"accumulate_features": 2}, ema={"decay": 0.9})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 steps of 72 pairs: ")
    rows = {line[:14].strip(): line[14:].split() for line in lines[2 : 2 + len(PARTS)]}
    assert set(rows) == NAMES
    assert sum(float(share.rstrip("%")) for _, share in rows.values()) == pytest.approx(100, abs=0.5)
    assert all(float(rows[name][0]) > 0 for name in (FORWARD, BACKWARD, "loss", "optimizer"))
    trace = json.loads((run / "profile" / "rank0.json").read_text())
    ranges = [event["name"] for event in trace["traceEvents"] if event.get("cat") == "user_annotation"]
    assert NAMES - {REST} <= set(ranges)
    assert ranges.count(FORWARD) == 2 * 2 * 2  # steps, micro-batches, passes
    report = json.loads((run / "profile" / "steps.json").read_text())
    assert set(report["milliseconds"]) == NAMES and report["steps"] == 2
    assert sorted(path.name for path in run.iterdir()) == ["profile"]  # so that a training can still start there


def test_a_part_within_another_counts_for_itself():
    clock = StepClock(lambda: None)
    with part(FORWARD):
        time.sleep(0.01)  # before the clock runs
    with clock.running():
        with part(BACKWARD):
            time.sleep(0.02)
            with part(FORWARD):
                time.sleep(0.05)
        time.sleep(0.03)
    assert clock.seconds[FORWARD] >= 0.05
    assert 0.02 <= clock.seconds[BACKWARD] < clock.seconds[FORWARD] + 0.03
    assert clock.seconds[REST] >= 0.03
    before = dict(clock.seconds)
    with part(FORWARD):
        pass
    assert clock.seconds == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--profile-steps", "9"], "--profile-steps 9: with 3 steps before and 9 traced ones it takes 21, and the"),
        (["--profile-steps", "1", "--profile-data", "1"], "are two measurements: leave one of them out"),
        (["--profile-steps", "1", "--resume", "latest"], "--resume has no effect with --profile-steps"),
    ],
)
def test_profiles_that_cannot_be_taken_are_refused(training_error, flags, message):
    assert message in training_error("run", *flags)


@pytest.mark.timeout(300)
def test_every_process_writes_a_trace(write_config, tmp_path):
    done = launch(write_config("two"), 2, "--profile-steps", "1")
    assert done.returncode == 0, done.stderr
    profile = tmp_path / "two" / "profile"
    assert sorted(path.name for path in profile.iterdir()) == ["rank0.json", "rank1.json", "steps.json"]
    report = json.loads((profile / "steps.json").read_text())
    assert all(len(ranks) == 2 for ranks in report["milliseconds"].values())
