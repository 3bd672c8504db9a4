"""``bimodal-eval zero-shot --train-counts``: scores of frequent and rare classes."""

from __future__ import annotations

import json

import pytest

from eval.cli import main
from tests.refusals import read_mistake
from tests.test_eval_commands.conftest import COLOURS, zero_shot

COUNTS = {"red square": 500, "green_square": 101, "Blue-Square": 100, "white square": 20, "black square": 19}
COUNTS |= {"yellow square": 0}


def test_buckets_are_shares_of_the_classes_images(run_folder, class_folders, tmp_path, capsys):
    file = tmp_path / "counts.json"
    file.write_text(json.dumps(COUNTS))
    result = zero_shot(run_folder, class_folders, tmp_path / "a", "--train-counts", file)
    recall = {each["class"]: (each["recall"] * each["count"], each["count"]) for each in result["per_class"]}
    for bucket, colours in (("head", "red green"), ("medium", "blue white"), ("tail", "black yellow")):
        hits, counts = zip(*(recall[f"{colour} square"] for colour in colours.split()), strict=True)
        assert result["metrics"][f"acc1_{bucket}"] == pytest.approx(sum(hits) / sum(counts))
    assert set(result["intervals"]) == set(result["metrics"])
    assert [each["train_count"] for each in result["per_class"]] == [19, 100, 101, 500, 20, 0]  # by name
    said = result["provenance"]["train_counts"]
    assert said == {"file": str(file), "medium": [20, 100], "num_classes": {"tail": 2, "medium": 2, "head": 2}}
    shown = capsys.readouterr().out
    assert "top-1 head" in shown and "top-1 tail" in shown
    table = tmp_path / "counts.tsv"
    table.write_text("class\tcount\n" + "".join(f"{name}\t{count}\n" for name, count in COUNTS.items()))
    flags = ("--train-counts", table, "--medium-shot", "100,500")
    other = zero_shot(run_folder, class_folders, tmp_path / "b", *flags)
    assert other["provenance"]["train_counts"]["num_classes"] == {"tail": 3, "medium": 3}
    assert "acc1_head" not in other["metrics"]
    assert other["metrics"]["acc1"] == result["metrics"]["acc1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"rad square": 3}, "'rad square' is none of the classes; did you mean 'red square'?"),
        ({"red square": 3}, "no count for 5 of 6 classes: 'black square', 'blue square', 'green square', ..."),
        ({**COUNTS, "red square": 2.5}, "the count of 'red square' is 2.5; it must be a whole number from 0"),
        ({**COUNTS, "red square": -1}, "the count of 'red square' is -1"),
        ({**COUNTS, "red_square": 1}, "class 'red square' has two counts"),
        ([1, 2], "must hold an object of class names and counts"),
        ("red square;many\nblue square;few\n", "the count of 'blue square' is 'few'"),
        ("red square,1,2\n", "row 1: 3 columns; it must be a class and a count"),
        ("", "holds no count"),
        ("{", "not JSON"),
    ],
)
def test_mistakes_are_named(content, message, run_folder, class_folders, tmp_path, capsys):
    file = tmp_path / "counts.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    error = read_mistake(capsys, main, "zero-shot", run_folder, "--data", class_folders, "--train-counts", file)
    assert f"--train-counts {file}" in error and message in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train-counts", "cuonts.json"], "cuonts.json: no such file"),
        (["--train-counts", "{file}", "--medium-shot", "100"], "must be two whole numbers such as 20,100"),
        (["--train-counts", "{file}", "--medium-shot", "100,20"], "must be two whole numbers such as 20,100"),
        (["--medium-shot", "10,50"], "--medium-shot: needs --train-counts"),
    ],
)
def test_flags_are_checked(flags, message, run_folder, class_folders, tmp_path, capsys):
    (tmp_path / "counts.json").write_text(json.dumps({f"{colour} square": 5 for colour in COLOURS}))
    flags = [flag.replace("{file}", str(tmp_path / "counts.json")) for flag in flags]
    assert message in read_mistake(capsys, main, "zero-shot", run_folder, "--data", class_folders, *flags)
