"""A training on the fault zoo completes, and its summary counts the planted faults."""

import pytest

from bimodal_cl.data.shards.faults import REPLACED_KINDS, SHARD_KINDS, USED_KINDS
from data_prep import cli
from tests.fault_zoo import write_fault_zoo
from tests.test_training.run_files import read_log

STEPS = {"num_epochs": 1, "global_batch_size": 16}


@pytest.fixture
def zoo(tmp_path, capsys):
    """The fault zoo, indexed with its damaged shards."""
    zoo = write_fault_zoo(tmp_path / "zoo")
    assert cli.main(["index", str(zoo.folder), "--damaged", "keep", "--captions", "lines"]) == 0
    capsys.readouterr()
    return zoo


def train_on(zoo, max_bad_fraction, **keys):
    """Return the ``data`` section of a config that trains on the zoo alone."""
    return {"train": str(zoo.folder), "val": None, "max_bad_fraction": max_bad_fraction, **keys}


def planted(counts: dict[str, int], kinds: dict[str, str]) -> dict[str, int]:
    return {kind: count for kind, count in counts.items() if kind in kinds}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_counts_every_planted_fault(run_training, zoo, capsys, num_workers):
    run = run_training(data=train_on(zoo, 0.5, num_workers=num_workers), train={**STEPS, "num_epochs": 2})
    summary = read_log(run)[-1]
    assert summary["event"] == "summary" and summary["samples_seen"] == 2 * zoo.num_images
    twice = {kind: 2 * count for kind, count in zoo.planted.items()}  # each fault occurs in both epochs
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


def test_faults_before_a_resume_are_counted_too(run_training, zoo):
    changes = {"data": train_on(zoo, 0.5), "train": STEPS, "checkpoint": {"every": 2, "keep_last": 9}}
    whole, resumed = (
        read_log(run_training("run", *flags, **changes))[-1] for flags in ([], ["--resume", "step_00000002"])
    )
    assert whole["data"] == resumed["data"]
    assert whole["data"]["replaced"] == planted(zoo.planted, REPLACED_KINDS)


def test_too_many_faults_stop_a_run_with_one_line(training_error, zoo):
    error = training_error(data=train_on(zoo, 0.0), train=STEPS)
    assert "max_bad_fraction=0.0 allows" in error and f"`bimodal-prep verify {zoo.folder}` names them all" in error


def test_faulty_validation_data_end_no_training(run_training, zoo, capsys):
    steps = {**STEPS, "num_steps": 2, "num_epochs": None, "evaluate_every": 1}
    changes = {"data": {"val": str(zoo.folder)}, "train": steps}
    left_out = sum(planted(zoo.planted, REPLACED_KINDS).values())
    run = run_training(**changes)
    assert [line["retrieval/left_out"] for line in read_log(run, "evaluate")] == [left_out, left_out]

    shard = zoo.folder / "00001.tar"
    shard.write_bytes(bytes(shard.stat().st_size))  # as large as before, but empty: noticed when it is read
    run = run_training("other", **changes, checkpoint={"every": 1})
    errors = [line["error"] for line in read_log(run, "evaluate")]
    assert len(errors) == 2 and all("00001.tar" in error for error in errors)
    assert "step 1: not evaluated" in "".join(capsys.readouterr())
    assert (run / "checkpoints/step_00000002").is_dir()
