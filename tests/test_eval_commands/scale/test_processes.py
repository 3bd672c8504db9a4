"""Two processes of ``accelerate launch`` give the results of one, to the last bit; one speaks; an error ends both."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from eval.cli import main
from tests.refusals import read_mistake
from tests.test_data.tiny_shards import write_manifest, write_tar
from tests.test_eval_commands.conftest import as_png, draw
from tests.test_eval_commands.scale.launching import launch

SCRIPT = Path(__file__).with_name("in_two_processes.py")
PROGRAM = Path(sys.executable).with_name("bimodal-eval")


def read_results(folder):
    """Return the results below a folder by their path in it, without command and cache, which differ."""
    results = {path.relative_to(folder).as_posix(): json.loads(path.read_text()) for path in folder.rglob("*.json")}
    for result in results.values():
        assert result["provenance"].pop("command").startswith("bimodal-eval ")
        result["provenance"].pop("features", None)
    return results


def test_features_of_shares_are_those_of_the_whole():
    status, output, errors = launch(SCRIPT, "compare")
    assert status == 0, errors
    assert output == "rank 0 has compared\n"


def test_zero_shot_equals_one_process(run_folder, class_folders, tmp_path, capsys):
    picture = draw("red", 1)
    for folder in ("red_square", "white_square", "yellow_square"):  # the same image under three labels
        picture.save(class_folders / "test" / folder / "same.png")
    (class_folders / "test" / "blue_square" / "broken.png").write_bytes(as_png(picture)[:60])
    models = [run_folder, run_folder / "checkpoints" / "step_00000004"]
    words = ["zero-shot", *models, "--data", class_folders]
    assert main([*map(str, words), "--to", str(tmp_path / "one")]) == 0
    alone = capsys.readouterr()
    program = ("--no_python", PROGRAM) if PROGRAM.exists() else ("-m", "eval.cli")
    status, output, errors = launch(*program, *words, "--to", tmp_path / "two", "--batch-size", 3)
    assert status == 0, errors
    results = read_results(tmp_path / "two")
    assert len(results) == 2 and results == read_results(tmp_path / "one")
    assert results[next(iter(results))]["provenance"]["counts"]["num_skipped"] == 1
    assert output == alone.out.replace(str(tmp_path / "one"), str(tmp_path / "two"))
    assert errors.count("(process 1 of 2)") == 2 and "process 2 of 2" not in errors


def test_retrieval_equals_one_process_which_finds_the_features_that_two_kept(run_folder, shards, tmp_path, capfd):
    members = [("a.png", as_png(draw("red", 3))), ("a.txt", b"red\nblue"), ("b.png", b"no image"), ("b.txt", b"two")]
    write_tar(shards / "00002.tar", members)
    manifest = json.loads((shards / "manifest.json").read_text())["shards"]
    counts = [(each["name"], each["num_images"], each["num_texts"]) for each in manifest]
    write_manifest(shards, [*counts, ("00002.tar", 2, 3)])
    words = ["retrieval", run_folder, "--data", shards]
    assert main([*map(str, words), "--to", str(tmp_path / "one")]) == 0
    cache = ["--cache", tmp_path / "kept"]
    status, output, errors = launch("-m", "eval.cli", *words, "--to", tmp_path / "two", *cache)
    assert status == 0, errors
    results = read_results(tmp_path / "two")
    assert len(results) == 1 and results == read_results(tmp_path / "one")
    assert "1 skipped" in output and errors.count("key b: undecodable") == 1  # rank 1 has met it
    assert main([*map(str, words), "--to", str(tmp_path / "three"), *map(str, cache)]) == 0
    assert "features of pairs: taken from " in capfd.readouterr().err
    assert read_results(tmp_path / "three") == results


@pytest.mark.parametrize(("task", "line"), [("mistake", "error: a mistake on rank 1"), ("interrupt", "interrupted")])
def test_an_error_of_one_rank_ends_both_with_one_line(task, line):
    begin = time.monotonic()
    status, output, errors = launch(SCRIPT, task, 1)
    assert status != 0 and output == ""
    own, _, launchers = errors.partition("Traceback")  # the launcher adds a report of its own
    assert [each for each in own.splitlines() if each.startswith(("error", "interrupted"))] == [line]
    assert "torch.distributed" in launchers and "in_two_processes.py FAILED" in launchers
    assert time.monotonic() - begin < 100


def test_other_commands_refuse_several_processes(monkeypatch, capsys, run_folder):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    error = read_mistake(capsys, main, "report", run_folder)
    assert error == "error: this command works in one process: call it without a launcher"


def test_the_launchers_precision_must_be_that_of_the_command(monkeypatch, capsys, run_folder, class_folders):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    error = read_mistake(capsys, main, "zero-shot", run_folder, "--data", class_folders)
    assert "mixed_precision=bf16 differs from --precision float32" in error
