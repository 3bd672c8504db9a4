"""``bimodal-eval knn`` end to end, against votes that this file counts."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from eval.cli import main
from tests.refusals import read_mistake
from tests.test_eval_commands.conftest import COLOURS, run_command
from tests.test_eval_commands.probes.conftest import write_class_folders
from tests.test_eval_commands.probes.test_linear_probe_command import features_by_hand

knn = partial(run_command, "knn")


def test_the_most_similar_training_images_vote(run_folder, colours, tiny_model, tmp_path, capsys):
    result = knn(run_folder, colours, tmp_path / "out", "--k", "4", "--tau", "0.2")
    assert (tmp_path / "out" / "knn_colours.json").is_file()
    (train, labels), (test, wanted) = (features_by_hand(tiny_model, colours / each) for each in ("train", "test"))
    names, hits = sorted(set(labels)), []
    for sims, target in zip(test @ train.T, wanted, strict=True):
        votes = dict.fromkeys(names, 0.0)
        for row in np.argsort(-sims)[:4]:
            votes[labels[row]] += np.exp(sims[row] / 0.2)
        hits.append(max(votes, key=votes.__getitem__) == target)
    assert result["metrics"]["acc1"] == pytest.approx(np.mean(hits))
    assert set(result["metrics"]) == {"acc1", "acc5", "mean_per_class_recall"} == set(result["intervals"])
    assert result["probe"] == {"k": 4, "tau": 0.2}
    assert sum(each["count"] for each in result["confusions"]) == len(hits) - sum(hits)
    assert "18 images of 6 classes, by 4 neighbours among 30 images of train" in capsys.readouterr().out


def test_language_and_kept_features_are_recorded(run_folder, colours, tmp_path):
    result = knn(run_folder, colours, tmp_path / "out", "--cache", tmp_path / "kept", "--language", "de")
    assert (tmp_path / "out" / "knn_colours~de.json").is_file() and result["language"] == "de"
    assert [each["of"] for each in result["provenance"]["features"]] == ["images", "images"]
    assert result["provenance"]["image_features"] == "unit norm"


def test_several_classes_an_image_are_scored_by_mean_average_precision(run_folder, several, tmp_path):
    result = knn(run_folder, several, tmp_path / "out")
    chance = result["provenance"]["chance"]["mean_average_precision"]
    assert chance < result["metrics"]["mean_average_precision"] <= 1


def test_a_class_without_training_images_is_no_candidate(run_folder, tmp_path):
    data = write_class_folders(tmp_path / "five", {"train": 5, "test": 3}, list(COLOURS)[:5])
    unseen = sorted((data / "train").iterdir())[-1]
    for path in unseen.iterdir():
        path.unlink()
    result = knn(run_folder, data, tmp_path / "out", "--k", "4")
    assert set(result["metrics"]) == {"acc1", "mean_per_class_recall"}  # four candidates have no top 5
    assert result["provenance"]["chance"]["acc1"] == 0.25
    assert {each["class"]: each["recall"] for each in result["per_class"]}[unseen.name] == 0
    assert result["provenance"]["unseen_classes"] == [unseen.name]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--k", "31"], "--k 31: the split train has only 30 images"),
        (["--tau", "0"], "--tau 0.0: must be above 0"),
        (["--split", "tset"], "--split tset: no such folder in {data}; did you mean 'test'?"),
    ],
)
def test_mistakes_are_one_line_and_status_2(flags, message, run_folder, colours, capsys):
    error = read_mistake(capsys, main, "knn", run_folder, "--data", colours, *flags)
    assert message.replace("{data}", str(colours)) in error


def test_a_built_in_list_names_the_classes(run_folder, colours, tmp_path):
    for split in colours.iterdir():
        for number, folder in enumerate(sorted(split.iterdir())):
            folder.rename(split / str(number))
    result = knn(run_folder, colours, tmp_path / "out", "--classnames", "cifar10")
    assert [each["class"] for each in result["per_class"]] == ["airplane", "automobile", "bird", "cat", "deer", "dog"]
