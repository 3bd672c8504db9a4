"""A training on two data sets logs counts by set and resumes, and the reports read both sets."""

import json

import pytest

from eval import cli as eval_cli
from tests.test_training.run_files import assert_equal_runs, copy_run, read_log


@pytest.fixture
def mixed(shapes):
    """Changes to a config for 384 and, five times, 12 images, so that an epoch has 444 images and 6 batches of 72."""
    train = [{"folder": str(shapes / "train")}, {"folder": str(shapes / "val"), "repeat": 5}]
    return {"data": {"train": train}, "checkpoint": {"every": 4, "keep_last": 9}}


def test_counts_by_set_are_logged_and_resumed(run_training, mixed):
    whole = run_training("whole", **mixed)
    steps = read_log(whole, "train")
    assert len(steps) == 12
    for line in steps:
        assert line["samples_seen/train"] + line["samples_seen/val"] == line["samples_seen"] == 72 * line["step"]
    # Each epoch trains on 432 of 444 images, so at most 12 of the 60 repeats are dropped.
    assert 96 <= read_log(whole)[-1]["data"]["samples_by_set"]["val"] <= 120
    part = copy_run(whole, "part")
    for step in ("step_00000004", "step_00000008"):
        run_training("part", "--resume", step, "--data.num_workers", "2", **mixed)
    assert_equal_runs(whole, part)


def test_reports_read_all_sets(run_training, mixed, tmp_path, capsys):
    run = run_training(**mixed)
    capsys.readouterr()
    assert eval_cli.main(["temperatures", str(run), "--to", str(tmp_path / "texts.csv")]) == 0
    assert "1,193 texts" in capsys.readouterr().out  # 1,157 and 36
    assert len((tmp_path / "texts.csv").read_text().splitlines()) == 1194
    assert eval_cli.main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "train.1.repeat" in page and "{&#39;" not in page
    assert "396 images, 1,193 captions, 5 shards" in page and "data:image/jpeg;base64" in page


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([{"folder": "a", "repaet": 2}], "--data.train: 0.repaet: unknown key; did you mean 'repeat'?"),
        ([{"folder": "a", "weight": 2}, "b"], "give every data set of train a weight or none; without: b"),
        ([{"folder": "a", "weight": 2, "repeat": 1}], "data set a has a repeat and a weight; give one of them"),
        ([], "train names no data set"),
        ([{"folder": "a", "repeat": 0}], "--data.train: 0.repeat: input should be greater than 0, got 0"),
    ],
)
def test_mistakes_in_the_list_are_named(training_error, sets, message):
    assert message in training_error("run", "--data.train", json.dumps(sets))
    assert "/nowhere: no such folder of shards" in training_error("run", "--data.train", "/nowhere")
