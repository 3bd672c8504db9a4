"""A training on the fault zoo: it completes, and its summary counts what was planted."""

import json

import pytest

from bimodal_cl import train
from bimodal_cl.data.faults import REPLACED_KINDS, SHARD_KINDS, USED_KINDS
from data_prep import cli
from tests.fault_zoo import write_fault_zoo


def planted(counts: dict[str, int], kinds: dict[str, str]) -> dict[str, int]:
    return {kind: count for kind, count in counts.items() if kind in kinds}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_counts_every_planted_fault(write_config, tmp_path, capsys, num_workers):
    zoo = write_fault_zoo(tmp_path / "zoo")
    assert cli.main(["index", str(zoo.folder), "--damaged", "keep", "--captions", "lines"]) == 0
    data = {"train": str(zoo.folder), "val": None, "max_bad_fraction": 0.5, "num_workers": num_workers}
    steps = {"num_epochs": 2, "global_batch_size": 16, "log_every": 1, "device": "cpu"}
    assert train.main(["--config", str(write_config("run", data=data, train=steps))]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    summary = lines[-1]
    assert summary["event"] == "summary" and summary["samples_seen"] == 2 * zoo.num_images
    twice = {kind: 2 * count for kind, count in zoo.planted.items()}  # in either epoch
    assert summary["data"]["replaced"] == planted(twice, REPLACED_KINDS)
    assert summary["data"]["used"] == planted(twice, USED_KINDS)
    assert summary["shards"] == planted(zoo.planted, SHARD_KINDS)
    said = capsys.readouterr()
    for kind in (*summary["data"]["replaced"], *summary["data"]["used"], *summary["shards"]):
        assert kind in said.out + said.err


def test_faults_before_a_resume_are_counted_too(write_config, tmp_path):
    zoo = write_fault_zoo(tmp_path / "zoo")
    assert cli.main(["index", str(zoo.folder), "--damaged", "keep", "--captions", "lines"]) == 0
    data = {"train": str(zoo.folder), "val": None, "max_bad_fraction": 0.5}
    steps = {"num_epochs": 1, "global_batch_size": 16, "log_every": 1, "device": "cpu"}
    changes = {"data": data, "train": steps, "checkpoint": {"every": 2, "keep_last": 9}}
    summaries = []
    for flags in ([], ["--resume", "step_00000002"]):
        assert train.main(["--config", str(write_config("run", **changes)), *flags]) == 0
        summaries.append(json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1]))
    assert summaries[0]["data"] == summaries[1]["data"]
    assert summaries[0]["data"]["replaced"] == planted(zoo.planted, REPLACED_KINDS)


def test_too_many_faults_stop_a_run_with_one_line(write_config, tmp_path, capsys):
    zoo = write_fault_zoo(tmp_path / "zoo")
    assert cli.main(["index", str(zoo.folder), "--damaged", "keep", "--captions", "lines"]) == 0
    capsys.readouterr()
    data = {"train": str(zoo.folder), "val": None, "max_bad_fraction": 0.0}
    steps = {"num_epochs": 1, "global_batch_size": 16, "device": "cpu"}
    assert train.main(["--config", str(write_config("run", data=data, train=steps))]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "max_bad_fraction=0.0 allows" in error and f"`bimodal-prep verify {zoo.folder}` names them all" in error
