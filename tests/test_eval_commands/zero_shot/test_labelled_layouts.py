"""``bimodal-eval zero-shot`` scores the same images equally, whatever stores them."""

from __future__ import annotations

import csv

from datasets import ClassLabel, Dataset, Features, Image

from eval.cli import main
from tests.refusals import read_mistake
from tests.test_eval_commands.conftest import zero_shot


def test_folders_a_table_and_a_data_set_of_the_same_images_score_equally(run_folder, class_folders, tmp_path):
    paths = sorted((class_folders / "test").glob("*/*.png"))
    folders = sorted({path.parent.name for path in paths})
    with (class_folders / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("file", "kind"), *((path.relative_to(class_folders), path.parent.name) for path in paths)])
    Dataset.from_dict(
        {"picture": [str(path) for path in paths], "kind": [folders.index(path.parent.name) for path in paths]},
        features=Features({"picture": Image(), "kind": ClassLabel(names=folders)}),
    ).save_to_disk(tmp_path / "saved")
    expected = zero_shot(run_folder, class_folders, tmp_path / "a")
    table = zero_shot(run_folder, class_folders / "list.csv", tmp_path / "b", "--label-column", "kind")
    saved = zero_shot(run_folder, tmp_path / "saved", tmp_path / "c", "--workers", 2)
    for result, name in ((table, "list"), (saved, "saved")):
        assert result["metrics"] == expected["metrics"] and result["per_class"] == expected["per_class"]
        assert result["intervals"] == expected["intervals"] and result["dataset"] == name


def test_missing_files_are_named(run_folder, class_folders, capsys):
    (class_folders / "list.csv").write_text("image,label\n")
    error = read_mistake(capsys, main, "zero-shot", run_folder, "--data", class_folders / "lst.csv")
    assert "lst.csv: no such file; did you mean 'list.csv'?" in error
    error = read_mistake(capsys, main, "zero-shot", run_folder, "--data", class_folders, "--root", class_folders)
    assert "--root: " in error and "has no columns" in error
