"""A training on two data sets: counts by set in the log, resume, and the reports that read both."""

import json

import pytest
import yaml

from bimodal_cl import train
from eval import cli as eval_cli
from tests.test_training.test_resume import assert_equal_runs


@pytest.fixture
def mixed(write_config, shapes):
    """Write a config of 384 and, five times, 12 images, so that an epoch has 444 and 6 batches of 72."""

    def write(name, **changes):
        path = write_config(name, checkpoint={"every": 4, "keep_last": 9}, **changes)
        values = yaml.safe_load(path.read_text())
        values["data"]["train"] = [{"folder": str(shapes / "train")}, {"folder": str(shapes / "val"), "repeat": 5}]
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def test_counts_by_set_are_logged_and_resumed(mixed, tmp_path):
    whole, part = mixed("whole"), mixed("part")
    assert train.main(["--config", str(whole)]) == 0
    lines = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["event"] == "train"]
    assert len(steps) == 12
    for line in steps:
        assert line["samples_seen/train"] + line["samples_seen/val"] == line["samples_seen"] == 72 * line["step"]
    # 432 of the 444 drawn in either epoch: at most 12 of the 60 are dropped.
    assert 96 <= lines[-1]["data"]["samples_by_set"]["val"] <= 120
    assert train.main(["--config", str(part)]) == 0
    for step in ("step_00000004", "step_00000008"):
        assert train.main(["--config", str(part), "--resume", step, "--data.num_workers", "2"]) == 0
    assert_equal_runs(tmp_path / "whole", tmp_path / "part")


def test_reports_read_all_sets(mixed, tmp_path, capsys):
    assert train.main(["--config", str(mixed("run"))]) == 0
    capsys.readouterr()
    assert eval_cli.main(["temperatures", str(tmp_path / "run"), "--to", str(tmp_path / "texts.csv")]) == 0
    assert "1,193 texts" in capsys.readouterr().out  # 1,157 and 36
    assert len((tmp_path / "texts.csv").read_text().splitlines()) == 1194
    assert eval_cli.main(["report", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run/report.html").read_text()
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
def test_mistakes_in_the_list_are_named(mixed, capsys, sets, message):
    assert train.main(["--config", str(mixed("run")), "--data.train", json.dumps(sets)]) == 2
    assert message in capsys.readouterr().err
    assert train.main(["--config", str(mixed("run")), "--data.train", "/nowhere"]) == 2
    assert "/nowhere: no such folder of shards" in capsys.readouterr().err
