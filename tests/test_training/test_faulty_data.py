"""A training on the fault zoo: it completes, and its summary counts what was planted."""

import json

import pytest

from bimodal_cl import train
from bimodal_cl.data.shards.faults import REPLACED_KINDS, SHARD_KINDS, USED_KINDS
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
    lines = (said.out + said.err).splitlines()
    for what, counts in (("replaced", "replaced"), ("used", "used")):
        for kind, count in summary["data"][counts].items():
            assert f"data: {count} {kind} ({what})" in lines
    for kind, count in summary["shards"].items():
        assert f"data: {count} {kind} (found by index)" in lines


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


def test_faulty_validation_data_end_no_training(write_config, tmp_path, capsys):
    zoo = write_fault_zoo(tmp_path / "zoo")
    assert cli.main(["index", str(zoo.folder), "--damaged", "keep", "--captions", "lines"]) == 0
    steps = {"num_steps": 2, "num_epochs": None, "global_batch_size": 16, "evaluate_every": 1, "device": "cpu"}
    config = write_config("run", data={"val": str(zoo.folder)}, train=steps)
    assert train.main(["--config", str(config)]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    left_out = sum(planted(zoo.planted, REPLACED_KINDS).values())
    assert [line["retrieval/left_out"] for line in lines if line["event"] == "evaluate"] == [left_out, left_out]

    shard = zoo.folder / "00001.tar"
    config = write_config("other", data={"val": str(zoo.folder)}, train=steps, checkpoint={"every": 1})
    data = bytearray(shard.read_bytes())
    data[:] = bytes(len(data))  # as large as before, and empty: found out when it is read
    shard.write_bytes(data)
    assert train.main(["--config", str(config)]) == 0
    lines = [json.loads(line) for line in (tmp_path / "other/metrics.jsonl").read_text().splitlines()]
    errors = [line["error"] for line in lines if line["event"] == "evaluate"]
    assert len(errors) == 2 and all("00001.tar" in error for error in errors)
    assert "step 1: not evaluated" in "".join(capsys.readouterr())
    assert (tmp_path / "other/checkpoints/step_00000002").is_dir()
