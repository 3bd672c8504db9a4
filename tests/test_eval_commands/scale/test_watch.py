"""``--watch`` scores every checkpoint of a run once, also those that appear later, and ends with the run."""

from __future__ import annotations

import json
import shutil
import threading
import time

import pytest
from safetensors.torch import save_file

from eval import score_models, watch
from eval.cli import main
from tests.refusals import read_mistake
from tests.test_eval_commands.conftest import as_png, draw

RESULT = "zeroshot_classification_six_colours~step_{:08d}.json"


@pytest.fixture
def run(run_folder, tmp_path):
    """A run of its own with checkpoints of the steps 4 and 8, which is finished."""
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder, symlinks=True)
    finish(folder)
    return folder


def finish(run):
    (run / "metrics.jsonl").write_text('{"event": "train", "step": 8}\n{"event": "summary", "step": 8}\n')


def follow(run, data, *flags):
    return main(["zero-shot", "--watch", str(run), "--data", str(data), *map(str, flags)])


def test_each_checkpoint_is_scored_once(run, class_folders, capsys, tiny_model):
    assert follow(run, class_folders) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 4", "step 8", lines[-1]]
    assert all("top-1 " in line and " ± " in line for line in lines[:2])
    assert lines[-1] == f"{run} is finished; 2 of its checkpoints were scored now; results in {run / 'results'}"
    results = [json.loads((run / "results" / RESULT.format(step)).read_text()) for step in (4, 8)]
    assert [each["provenance"]["step"] for each in results] == [4, 8]
    assert main(["zero-shot", str(run), "--data", str(class_folders)]) == 0  # as without --watch
    usual = json.loads((run / "results" / "zeroshot_classification_six_colours.json").read_text())
    assert usual["metrics"] == results[1]["metrics"] and "watched" not in usual["provenance"]

    assert follow(run, class_folders) == 0
    captured = capsys.readouterr()
    assert "0 of its checkpoints were scored now" in captured.out and captured.err.count(": scored before") == 2
    # Other weights under a known name, and then other data.
    weights = {name: value + 0.01 for name, value in tiny_model.state_dict().items()}
    save_file(weights, run / "checkpoints" / "step_00000004" / "model.safetensors")
    assert follow(run, class_folders) == 0
    assert "1 of its checkpoints were scored now" in capsys.readouterr().out
    (class_folders / "test" / "red_square" / "0.png").write_bytes(as_png(draw("green", 3)))
    assert follow(run, class_folders) == 0
    assert "2 of its checkpoints were scored now" in capsys.readouterr().out


def test_checkpoints_that_appear_later_and_one_that_is_removed(run, class_folders, monkeypatch, capsys):
    monkeypatch.setattr(watch, "_PAUSE", 0.05)
    (run / "metrics.jsonl").unlink()
    checkpoints = run / "checkpoints"
    later = checkpoints / "step_00000012"
    opened = []
    real = score_models.open_model

    def open_model(given, *arguments):
        opened.append(given)
        if given.endswith("step_00000008"):
            shutil.rmtree(given)  # as keep_last does
        return real(given, *arguments)

    def train():
        while not (run / "results" / RESULT.format(4)).exists():
            time.sleep(0.05)
        shutil.copytree(checkpoints / "step_00000004", later.with_suffix(".partial"))
        later.with_suffix(".partial").rename(later)
        finish(run)

    monkeypatch.setattr(score_models, "open_model", open_model)
    training = threading.Thread(target=train)
    training.start()
    assert follow(run, class_folders) == 0
    training.join()
    captured = capsys.readouterr()
    assert "step_00000008: removed by the training before it was scored (checkpoint.keep_last)" in captured.err
    assert [line.split("  ")[0] for line in captured.out.splitlines()[:2]] == ["step 4", "step 12"]
    assert sorted(path.name for path in (run / "results").glob("*.json")) == [RESULT.format(4), RESULT.format(12)]


def test_the_summary_of_an_earlier_part_does_not_end_the_watch(run):
    folder = watch.require_run([str(run)])
    assert watch.is_finished(folder)
    with folder.metrics.open("a") as log:
        log.write('{"event": "train", "step": 9}\n')  # the run was resumed
    assert not watch.is_finished(folder)
    with folder.metrics.open("a") as log:
        log.write('{"event": "summ')
    assert not watch.is_finished(folder)
    folder.metrics.unlink()
    assert not watch.is_finished(folder)


def test_ctrl_c_ends_the_watch(run, class_folders, monkeypatch, capsys):
    (run / "metrics.jsonl").unlink()

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(watch.time, "sleep", interrupt)
    assert follow(run, class_folders) == 130
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == "interrupted" and len(captured.out.splitlines()) == 2


def test_only_one_run_is_watched(run, class_folders, tmp_path, capsys):
    error = read_mistake(capsys, main, "zero-shot", run, run, "--watch", "--data", class_folders)
    assert error == "error: --watch follows one run, got 2 models"
    error = read_mistake(capsys, main, "zero-shot", tmp_path, "--watch", "--data", class_folders)
    assert "no config.yaml in it, so this is not a run's folder" in error


def test_a_checkpoint_that_is_scored_is_not_loaded(run, class_folders, monkeypatch, capsys):
    assert follow(run, class_folders) == 0

    def refuse(*arguments):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(score_models, "open_model", refuse)
    assert follow(run, class_folders) == 0
    assert "0 of its checkpoints were scored now" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="a model was loaded"):  # for other prompts
        follow(run, class_folders, "--templates", "photo")


def test_averaged_weights_that_a_run_has_not_are_refused(run, class_folders, capsys):
    words = ("zero-shot", run, "--watch", "--weights", "ema", "--data", class_folders)
    newest = run / "checkpoints" / "step_00000008"
    error = read_mistake(capsys, main, *words)
    assert error.startswith(f"error: --watch {run} --weights ema: no averaged weights")
    assert f"'ema.safetensors' is missing in {newest}; a run keeps them with ema.decay" in error
    shutil.copy(newest / "model.safetensors", newest / "ema.safetensors")  # as after a resume with ema.decay
    assert main([*map(str, words)]) == 0
    assert "1 of its checkpoints were scored now" in capsys.readouterr().out
    assert [path.name for path in (run / "results").glob("*.json")] == [RESULT.format(8).replace(".json", "~ema.json")]


def test_features_of_a_checkpoint_that_is_removed_while_it_is_encoded_are_found_again(
    run, class_folders, tmp_path, monkeypatch
):
    checkpoint, away = run / "checkpoints" / "step_00000004", tmp_path / "away"
    flags = ("--cache", tmp_path / "kept")
    real = score_models.open_model

    def open_model(given, *arguments):
        model = real(given, *arguments)
        if given == str(checkpoint):
            checkpoint.rename(away)  # as keep_last does
        return model

    with monkeypatch.context() as patched:
        patched.setattr(score_models, "open_model", open_model)
        assert follow(run, class_folders, *flags) == 0
    away.rename(checkpoint)
    shutil.rmtree(run / "results")
    assert follow(run, class_folders, *flags) == 0
    features = json.loads((run / "results" / RESULT.format(4)).read_text())["provenance"]["features"]
    assert [each["from_cache"] for each in features] == [True, True]
