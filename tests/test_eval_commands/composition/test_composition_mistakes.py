"""Composition sets that contradict their format are refused by one line that names the entry."""

from __future__ import annotations

import json

import pytest

from eval.cli import main
from tests.refusals import read_mistake


def change_entry(path, key, change):
    entries = json.loads(path.read_text())
    change(entries[key])
    path.write_text(json.dumps(entries))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entry: entry.update(caption=" "), "add_att.json, entry '2': 'caption' is empty"),
        (lambda entry: entry.update(negative_caption=3), "entry '2': 'negative_caption' must be a text, got 3"),
        (
            lambda entry: entry.update(negative_captions=entry.pop("negative_caption")),
            "entry '2': no 'negative_caption'; did you mean 'negative_captions'?",
        ),
        (lambda entry: entry.update(filename="9.png"), "entry '2': no image '9.png' in "),
    ],
)
def test_an_entry_of_sugar_crepe(change, message, run_folder, sugar_crepe, capsys):
    change_entry(sugar_crepe / "add_att.json", "2", change)
    assert message in read_mistake(capsys, main, "composition", run_folder, "--data", sugar_crepe)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "add_att.json: not valid JSON (Expecting property name"),
        ("[" * 100_000, "add_att.json: not valid JSON ("),
        ("[1]", "add_att.json: not in SugarCrepe's format"),
        ('{"images": [1]}', "add_att.json, entry 'images': must be an object with 'filename'"),
    ],
)
def test_a_file_of_sugar_crepe(content, message, run_folder, sugar_crepe, capsys):
    (sugar_crepe / "add_att.json").write_text(content)
    assert message in read_mistake(capsys, main, "composition", run_folder, "--data", sugar_crepe)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.update(caption_1=""), "examples.jsonl, line 2: 'caption_1' is empty"),
        (lambda row: row.pop("image_0"), "line 2: no 'image_0'; did you mean 'image_1'?"),
        (lambda row: row.update(image_0="ex_1_img_7"), "line 2: no image 'ex_1_img_7' in "),
    ],
)
def test_a_line_of_winoground(change, message, run_folder, winoground, winoground_rows, capsys):
    change(winoground_rows[1])
    path = winoground / "data" / "examples.jsonl"
    path.write_text("\n".join(map(json.dumps, winoground_rows)))
    assert message in read_mistake(capsys, main, "composition", run_folder, "--data", winoground)


def test_a_folder_in_neither_format(run_folder, tmp_path, sugar_crepe, capsys):
    (tmp_path / "empty").mkdir()
    error = read_mistake(capsys, main, "composition", run_folder, "--data", tmp_path / "empty")
    assert "neither SugarCrepe's JSON files (add_att.json, ...) nor Winoground's examples.jsonl" in error
    error = read_mistake(capsys, main, "composition", run_folder, "--data", sugar_crepe, "--images", "nowhere")
    assert "--images nowhere: no such folder" in error


def test_parquet_files_of_another_split_are_not_scored(run_folder, tmp_path, capsys):
    from datasets import Dataset

    Dataset.from_list([{"caption_0": "a"}]).to_parquet(str(tmp_path / "tests" / "train-00000-of-00001.parquet"))
    error = read_mistake(capsys, main, "composition", run_folder, "--data", tmp_path / "tests")
    assert "--split test: not in" in error and "train" in error


def test_a_split_that_a_saved_data_set_has_not(run_folder, tmp_path, capsys):
    from datasets import Dataset, DatasetDict

    DatasetDict({"train": Dataset.from_list([{"caption_0": "a"}])}).save_to_disk(str(tmp_path / "saved"))
    error = read_mistake(capsys, main, "composition", run_folder, "--data", tmp_path / "saved")
    assert "--split test: not in" in error
    error = read_mistake(capsys, main, "composition", run_folder, "--data", tmp_path / "saved", "--split", "train")
    assert "no column 'caption_1'; did you mean 'caption_0'?" in error
