"""On a disk that is really full, the last checkpoint survives, and the run stops or goes on as it was told."""

import json
import subprocess
from contextlib import suppress

import pytest

from bimodal_cl.files.checksums import find_damage
from bimodal_cl.training.encoded_batch import EncodedBatch

MANY = {"train": {"num_epochs": None, "num_steps": 12}, "checkpoint": {"every": 2, "keep_last": 5}}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 25 MiB: room for two checkpoints of the small model."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=25m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system of its own without the right to mount: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def whole_checkpoints(run):
    found = sorted((run / "checkpoints").glob("step_*"))
    assert all(find_damage(path) is None and (path / "SHA256SUMS").is_file() for path in found)
    return [int(path.name.removeprefix("step_")) for path in found]


def test_a_run_stops_and_continues_when_there_is_room_again(run_training, small_disk, training_error, tmp_path):
    run = small_disk / "run"
    line = training_error("run", "--output", str(run), status=1, **MANY)
    assert "could not be written: " in line and "free some space and continue with --resume latest" in line
    kept = whole_checkpoints(run)
    assert kept and kept[-1] < 12
    assert (run / "checkpoints/latest").readlink().name == f"step_{kept[-1]:08d}"
    moved = tmp_path / "moved"
    subprocess.run(["cp", "-a", str(run), str(moved)], check=True)
    run_training("run", "--output", str(moved), "--resume", "latest", **MANY)
    assert whole_checkpoints(moved)[-1] == 12


def test_a_run_goes_on_if_it_is_told_to(small_disk, training_error):
    run = small_disk / "run"
    options = {**MANY, "checkpoint": {**MANY["checkpoint"], "on_write_error": "continue"}}
    line = training_error("run", "--output", str(run), status=1, **options)
    assert "step_00000012 could not be written" in line  # the last one must be
    kept = whole_checkpoints(run)
    assert kept and kept[-1] < 10
    assert not list((run / "checkpoints").glob("*.partial"))


def test_a_line_of_the_log_is_written_whole_or_not_at_all(run_training, small_disk, monkeypatch, capfd):
    step, real = 0, EncodedBatch.backward

    def fill_the_disk(self):
        nonlocal step
        step += 1
        if step == 3:
            with (small_disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
                while file.write(bytes(4096)):
                    pass
        return real(self)

    monkeypatch.setattr(EncodedBatch, "backward", fill_the_disk)
    options = {"train": {"num_epochs": None, "num_steps": 40}, "data": {"val": None}}
    output = small_disk / "run"
    checkpoint = {"every": 100, "on_write_error": "continue"}
    run_training("run", "--output", str(output), status=1, checkpoint=checkpoint, **options)
    errors = capfd.readouterr().err
    assert "lost this step's line: No space left on device" in errors
    assert "step_00000040 could not be written" in errors
    text = (output / "metrics.jsonl").read_text()
    steps = [json.loads(line)["step"] for line in text.splitlines()]
    assert text.endswith("\n") and steps == list(range(1, len(steps) + 1)) and 2 <= len(steps) < 40
