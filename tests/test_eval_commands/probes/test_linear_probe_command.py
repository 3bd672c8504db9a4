"""``bimodal-eval linear-probe`` end to end, against scikit-learn on the encoder's features."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from eval.cli import main
from tests.refusals import read_mistake
from tests.test_eval_commands.conftest import run_command
from tests.test_eval_commands.probes.conftest import write_class_folders

linear_probe = partial(run_command, "linear-probe")


def features_by_hand(model, folder):
    """Return the features and the class folders of the images of a split."""
    paths = sorted(folder.glob("*/*.png"))
    with torch.no_grad():
        features = torch.cat([model.encode_image(model.preprocess(Image.open(path))[None]) for path in paths])
    return features.double().numpy(), [path.parent.name for path in paths]


def test_predicts_as_scikit_learn_on_train_and_validation(run_folder, colours, tiny_model, tmp_path, capsys):
    result = linear_probe(run_folder, colours, tmp_path / "out")
    assert (tmp_path / "out" / "linear_probe_colours.json").is_file()
    train, val, test = (features_by_hand(tiny_model, colours / each) for each in ("train", "validation", "test"))
    theirs = LogisticRegression(C=1 / result["probe"]["l2"], tol=1e-9, max_iter=20_000)
    theirs.fit(np.concatenate([train[0], val[0]]), train[1] + val[1])
    hits = theirs.predict(test[0]) == np.array(test[1])
    assert result["metrics"]["lp_acc1"] == pytest.approx(hits.mean())
    assert set(result["metrics"]) == {"lp_acc1", "lp_acc5", "lp_mean_per_class_recall"} == set(result["intervals"])
    recalls = {name: hits[np.array(test[1]) == name].mean() for name in sorted(set(test[1]))}
    assert {each["class"]: each["recall"] for each in result["per_class"]} == pytest.approx(recalls)
    assert result["task"] == "linear_probe"
    assert result["probe"]["validation"] == "validation"
    assert result["probe"]["l2"] in {each["l2"] for each in result["probe"]["sweep"]}
    counts = {"num_images": 18, "num_classes": 6, "num_train_images": 30, "num_val_images": 12, "num_skipped": 0}
    assert result["provenance"]["counts"] == counts
    shown = capsys.readouterr().out
    assert "18 images of 6 classes, learned from train, regularization chosen on validation" in shown
    assert f"{100 * hits.mean():.1f} %" in shown and "16.7 %" in shown
    again = linear_probe(run_folder, colours, tmp_path / "again", "--batch-size", 7)
    assert [again[key] for key in ("metrics", "intervals", "probe")] == [
        result[key] for key in ("metrics", "intervals", "probe")
    ]


def test_a_part_of_the_training_images_is_held_out_where_there_is_no_validation_split(run_folder, tmp_path):
    data = write_class_folders(tmp_path / "no_validation", {"train": 5, "test": 2})
    result = linear_probe(run_folder, data, tmp_path / "out", "--val-proportion", "0.4", "--seed", "3")
    counts = result["provenance"]["counts"]
    assert (counts["num_train_images"], counts["num_val_images"]) == (18, 12)
    assert result["probe"]["validation"] == "0.4 of each class of train"


def test_few_shots(run_folder, colours, tmp_path, capsys):
    flags = ["--shots", "4", "1", "--draws", "2"]
    result = linear_probe(run_folder, colours, tmp_path / "out", *flags)
    assert result["task"] == "few_shot"
    assert [row["shots"] for row in result["few_shot"]] == [1, 4]
    for row in result["few_shot"]:
        assert len(row["by_draw"]) == 2
        for name in ("lp_acc1", "lp_acc5", "lp_mean_per_class_recall"):
            mean = np.mean([draw[name] for draw in row["by_draw"]])
            assert row[name] == pytest.approx(mean) == result["metrics"][f"{name}_{row['shots']}shot"]
            assert row["intervals"][name] == result["intervals"][f"{name}_{row['shots']}shot"]
    shown = capsys.readouterr().out
    assert "means of 2 draws" in shown and "1 shot, top-1" in shown and "4 shots, top-1" in shown
    assert "18 images and of 2 draws of the shots" in shown


def test_several_classes_an_image_are_scored_by_mean_average_precision(run_folder, several, tmp_path, capsys):
    result = linear_probe(run_folder, several, tmp_path / "out")
    assert list(result["metrics"]) == ["lp_mean_average_precision"]
    found = [each["average_precision"] for each in result["per_class"]]
    assert result["metrics"]["lp_mean_average_precision"] == pytest.approx(np.mean(found))
    assert result["metrics"]["lp_mean_average_precision"] > result["provenance"]["chance"]["lp_mean_average_precision"]
    error = read_mistake(capsys, main, "linear-probe", run_folder, "--data", several, "--shots", "1")
    assert "--shots: needs images of one class each" in error


def test_two_models_are_compared_on_the_same_draws(run_folder, colours, tmp_path, capsys):
    checkpoint = run_folder / "checkpoints" / "step_00000004"
    flags = ["--data", colours, "--to", tmp_path / "out", "--shots", "1", "--draws", "2"]
    assert main([str(each) for each in ("linear-probe", run_folder, checkpoint, *flags)]) == 0
    row = next(
        line for line in capsys.readouterr().out.splitlines() if "1 shot, top-1  " in line and "distinguish" in line
    )
    assert row.split()[-5:] == ["+0.0", "[+0.0,", "+0.0]", "not", "distinguishable"]  # the weights are equal


def test_an_unreadable_image_and_a_class_without_images_are_named(run_folder, colours, tmp_path, capsys):
    for index in range(5):
        (colours / "train" / "red" / f"{index}.png").write_bytes(b"not a picture")
    for path in (colours / "validation" / "red").iterdir():
        path.unlink()
    result = linear_probe(run_folder, colours, tmp_path / "out")
    assert result["provenance"]["counts"]["num_skipped"] == 5
    assert "red/0.png" in result["provenance"]["skipped"][0]
    assert result["provenance"]["unseen_classes"] == ["red"]
    assert {each["class"]: each["recall"] for each in result["per_class"]}["red"] == 0
    shown = capsys.readouterr().out
    assert "5 images could not be read" in shown
    assert "1 classes have test images but no training images, so they score 0: red" in shown


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train-split", "trian"], "--train-split trian: no such folder in {data}; did you mean 'train'?"),
        (["--val-split", "valdation"], "--val-split valdation: no such folder in {data}; did you mean 'validation'?"),
        (["--split", "train"], "--split train: is --train-split too; these must be different images"),
        (["--val-split", "test"], "--val-split test: is --split too"),
        (["--val-proportion", "1.0"], "--val-proportion 1.0: must be between 0 and 1"),
        (["--shots", "6"], "--shots 6: class 'black' has only 5 training images"),
        (["--shots", "0"], "--shots"),
    ],
)
def test_mistakes_are_one_line_and_status_2(flags, message, run_folder, colours, capsys):
    error = read_mistake(capsys, main, "linear-probe", run_folder, "--data", colours, *flags)
    assert message.replace("{data}", str(colours)) in error


def test_splits_with_other_classes_are_refused(run_folder, colours, tmp_path, capsys):
    (colours / "test" / "red").rename(colours / "test" / "rde")
    error = read_mistake(capsys, main, "linear-probe", run_folder, "--data", colours)
    assert "--split test: 1 of its 6 classes are not among the 6 of the training images, such as 'rde'" in error
    assert "did you mean 'red'?" in error


def test_a_split_may_lack_classes(run_folder, colours, tmp_path):
    for path in (colours / "test" / "black").iterdir():
        path.unlink()
    (colours / "test" / "black").rmdir()
    whole = linear_probe(run_folder, colours, tmp_path / "out")
    assert [each["class"] for each in whole["per_class"]] == ["blue", "green", "red", "white", "yellow"]
    assert whole["metrics"]["lp_acc1"] > 0.5  # with the classes one off, it would be near 0
