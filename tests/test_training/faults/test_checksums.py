"""A checkpoint that is not what was written is recognised by its checksums, and the one before it is offered."""

import subprocess

import pytest

from bimodal_cl.files.checksums import CHECKSUMS_FILE, find_damage, write_checksums

SHORT = {"train": {"num_epochs": 1}, "checkpoint": {"every": 1, "keep_last": 3}}
FILES = ("model.safetensors", "model.json", "loss.safetensors", "optimizer.pt", "state.json")


def test_sha256sum_agrees(run_training):
    folder = run_training(**SHORT) / "checkpoints" / "latest"
    listed = [line.split("  ")[1] for line in (folder / CHECKSUMS_FILE).read_text().splitlines()]
    assert sorted(listed) == sorted(FILES)
    subprocess.run(["sha256sum", "--check", "--quiet", CHECKSUMS_FILE], cwd=folder, check=True)


@pytest.mark.parametrize("name", FILES)
def test_one_wrong_bit_is_found(run_training, training_error, name):
    run = run_training(**SHORT)
    path = run / "checkpoints" / "step_00000005" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    line = training_error("run", "--resume", "latest", **SHORT)
    assert f"step_00000005: {name} is damaged" in line and "continue with --resume step_00000004" in line
    run_training("run", "--resume", "step_00000004", **SHORT)
    assert find_damage(run / "checkpoints" / "latest") is None


def test_the_offered_checkpoint_is_whole_itself(run_training, training_error):
    run = run_training(**SHORT)
    for step in (4, 5):
        (run / f"checkpoints/step_{step:08d}" / "optimizer.pt").unlink()
    line = training_error("run", "--resume", "latest", **SHORT)
    assert "optimizer.pt is missing; continue with --resume step_00000003" in line
    (run / "checkpoints/step_00000003/optimizer.pt").unlink()
    line = training_error("run", "--resume", "latest", **SHORT)
    assert "no other checkpoint before it is whole" in line


def test_a_checkpoint_of_before_has_no_checksums(run_training):
    run = run_training(**SHORT)
    (run / "checkpoints/latest" / CHECKSUMS_FILE).unlink()
    longer = {**SHORT, "train": {"num_epochs": 2}}
    run_training("run", "--resume", "latest", **longer)


def test_files_in_folders_are_covered(tmp_path):
    (tmp_path / "tokenizer").mkdir()
    file = tmp_path / "tokenizer" / "vocab é.txt"
    file.write_text("a")
    write_checksums(tmp_path)
    assert find_damage(tmp_path) is None
    file.write_text("b")
    assert find_damage(tmp_path) == f"tokenizer/vocab é.txt is damaged (its SHA-256 is not that of {CHECKSUMS_FILE})"
    (tmp_path / CHECKSUMS_FILE).write_text("nonsense\n")
    assert find_damage(tmp_path) == f"{CHECKSUMS_FILE}: line 1 is not a checksum"
