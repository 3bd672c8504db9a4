"""``bimodal-eval zero-shot`` end to end, against scores that this file computes from the encoder's features."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from bimodal_cl.scoring.zero_shot import DEFAULT_TEMPLATES
from eval.cli import main
from tests.refusals import read_mistake
from tests.test_eval_commands.conftest import zero_shot


def predictions_by_hand(model, paths, names, templates):
    """Return each image's classes by decreasing similarity to the mean of the class's prompts."""
    rows = []
    with torch.no_grad():
        for name in names:
            mean = torch.stack([model.encode_text([each.replace("{c}", name)])[0] for each in templates]).mean(0)
            rows.append(mean / mean.norm())
        classes = torch.stack(rows)
        features = torch.cat([model.encode_image(model.preprocess(Image.open(path))[None]) for path in paths])
    return (features @ classes.T).argsort(dim=1, descending=True).numpy()


def test_scores_classes_and_confusions(run_folder, class_folders, tiny_model, tmp_path, capsys):
    result = zero_shot(run_folder, class_folders, tmp_path / "out", "--batch-size", 4)
    assert (tmp_path / "out" / "zeroshot_classification_six_colours.json").is_file()
    folders = sorted(each.name for each in (class_folders / "test").iterdir())
    paths = sorted((class_folders / "test").glob("*/*.png"))
    targets = np.array([folders.index(path.parent.name) for path in paths])
    names = [folder.replace("_", " ") for folder in folders]
    order = predictions_by_hand(tiny_model, paths, names, DEFAULT_TEMPLATES)
    hits = order[:, 0] == targets
    assert result["metrics"]["acc1"] == pytest.approx(hits.mean())
    assert result["metrics"]["acc5"] == pytest.approx((order[:, :5] == targets[:, None]).any(axis=1).mean())
    recalls = [hits[targets == target].mean() for target in range(6)]
    assert result["metrics"]["mean_per_class_recall"] == pytest.approx(np.mean(recalls))
    assert [each["class"] for each in result["per_class"]] == names
    assert [each["recall"] for each in result["per_class"]] == pytest.approx(recalls)
    assert [each["count"] for each in result["per_class"]] == np.bincount(targets).tolist()
    wrong = Counter(
        (names[target], names[guess]) for target, guess in zip(targets, order[:, 0], strict=True) if target != guess
    )
    assert {(each["class"], each["predicted"]): each["count"] for each in result["confusions"]} == wrong
    counts = [each["count"] for each in result["confusions"]]
    assert counts == sorted(counts, reverse=True)
    matrix = np.zeros((6, 6), dtype=int)
    for target, guess in zip(targets, order[:, 0], strict=True):
        matrix[target, guess] += 1
    assert result["confusion_matrix"] == {"classes": names, "counts": matrix.tolist()}
    assert result["provenance"]["counts"] == {"num_images": len(paths), "num_classes": 6, "num_skipped": 0}
    assert result["provenance"]["prompts"]["templates"] == list(DEFAULT_TEMPLATES)
    shown = capsys.readouterr().out
    assert f"{100 * hits.mean():.1f} %" in shown
    assert "16.7 %" in shown  # chance among 6 classes


def test_calibration_at_the_models_own_temperature(run_folder, class_folders, tiny_model, tmp_path, capsys):
    result = zero_shot(run_folder, class_folders, tmp_path / "out", "--templates", "photo")
    paths = sorted((class_folders / "test").glob("*/*.png"))
    names = sorted({path.parent.name.replace("_", " ") for path in paths})
    with torch.no_grad():
        texts = tiny_model.encode_text([f"a photo of a {name}." for name in names])
        images = torch.cat([tiny_model.encode_image(tiny_model.preprocess(Image.open(path))[None]) for path in paths])
        shares, guesses = (tiny_model.logit_scale.exp() * images @ texts.T).double().softmax(dim=1).max(dim=1)
    hits = [names[guess] == path.parent.name.replace("_", " ") for guess, path in zip(guesses, paths, strict=True)]
    gaps = Counter()
    for share, hit in zip(shares.tolist(), hits, strict=True):
        gaps[int(np.ceil(share * 15))] += hit - share
    calibration = result["calibration"]
    assert result["metrics"]["ece"] == pytest.approx(sum(map(abs, gaps.values())) / len(paths), abs=1e-5)
    assert calibration["temperature"] == pytest.approx(1 / tiny_model.logit_scale.exp().item())
    assert sum(each["count"] for each in calibration["bins"]) == len(paths)
    assert sum(each["count"] for each in calibration["bins_fitted"]) == len(paths)
    assert set(result["intervals"]) == set(result["metrics"]) >= {"ece", "ece_fitted"}
    assert "ece" not in result["provenance"]["chance"] and "ECE fitted" in capsys.readouterr().out


def test_both_layouts_give_the_same_scores_with_the_same_words(run_folder, class_folders, wds_folder, tmp_path):
    own = zero_shot(run_folder, wds_folder, tmp_path / "wds")
    assert own["dataset"] == "six_colours"
    assert own["provenance"]["prompts"]["templates"] == ["a {c} tile", "the colour {c}"]
    templates, names = tmp_path / "templates.txt", tmp_path / "names.txt"
    templates.write_text("a {c} tile\nthe colour {c}\n")
    names.write_text("black\nblue\ngreen\nred\nwhite\nyellow\n")
    words = ["--templates", templates, "--classnames", names]
    same = zero_shot(run_folder, class_folders, tmp_path / "folders", *words)
    assert same["metrics"] == own["metrics"]
    assert same["per_class"] == own["per_class"]


def test_named_templates_win_over_the_data_sets_own(run_folder, wds_folder, tmp_path):
    result = zero_shot(run_folder, wds_folder, tmp_path / "out", "--templates", "photo", "--precision", "bf16")
    assert result["provenance"]["prompts"]["templates"] == ["a photo of a {c}."]
    assert result["provenance"]["prompts"]["source"] == "photo"


def test_a_checkpoint_folder_is_scored_like_its_run(run_folder, class_folders, tmp_path):
    by_run = zero_shot(run_folder, class_folders, tmp_path / "run")
    by_folder = zero_shot(run_folder / "checkpoints" / "step_00000008", class_folders, tmp_path / "checkpoint")
    by_link = zero_shot(run_folder / "checkpoints" / "latest", class_folders, tmp_path / "link", "--workers", 2)
    assert by_run["metrics"] == by_folder["metrics"] == by_link["metrics"]
    assert by_run["model"] == by_folder["model"] == "tiny"
    assert by_folder["provenance"]["step"] == 8


def test_an_unreadable_image_is_counted_and_named(run_folder, class_folders, tmp_path, capsys):
    broken = class_folders / "test" / "black_square" / "9.png"
    broken.write_bytes(b"not a picture")
    result = zero_shot(run_folder, class_folders, tmp_path / "out")
    assert result["provenance"]["counts"]["num_skipped"] == 1
    assert str(broken) in result["provenance"]["skipped"][0]
    assert "1 images could not be read" in capsys.readouterr().out


def test_config_files_of_the_project_are_valid(capsys):
    configs = sorted((Path(__file__).parents[3] / "configs" / "eval").glob("*.yaml"))
    assert configs
    for config in configs:
        command = "retrieval" if "bimodal-eval retrieval" in config.read_text() else "zero-shot"
        assert main([command, "m", "--config", str(config), "--print-config"]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["data"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--templates", "nowhere.txt"], "--templates nowhere.txt: no such file"),
        (["--templates", "{bad}"], "has no {c} where the class name goes"),
        (["--classnames", "{bad}"], "6 class folders but 1 names in bad.txt"),
        (["--split", "tset"], "--split tset: not in {data}; did you mean 'test'?"),
    ],
)
def test_mistakes_are_one_line_and_status_2(flags, message, run_folder, class_folders, tmp_path, capsys):
    bad = tmp_path / "bad.txt"
    bad.write_text("a photo\n")
    flags = [flag.replace("{bad}", str(bad)) for flag in flags]
    error = read_mistake(capsys, main, "zero-shot", run_folder, "--data", class_folders, *flags)
    assert message.replace("{data}", str(class_folders)) in error


def test_data_of_one_class_are_refused(run_folder, class_folders, capsys):
    one = class_folders / "test" / "black_square"
    (one / "dark").mkdir()
    (one / "0.png").rename(one / "dark" / "0.png")
    error = read_mistake(capsys, main, "zero-shot", run_folder, "--data", one)
    assert "needs at least two classes, found only ['dark']" in error
    folders = [path for path in (class_folders / "test").iterdir() if path.is_dir()]
    (class_folders / "classnames.txt").write_text("dog\n" * len(folders))
    error = read_mistake(capsys, main, "zero-shot", run_folder, "--data", class_folders)
    assert "needs at least two classes, found only ['dog']" in error


def test_a_class_may_be_called_like_a_split(run_folder, class_folders, tmp_path):
    images = class_folders / "test"
    (images / "black_square").rename(images / "train")
    result = zero_shot(run_folder, images, tmp_path / "out")
    assert "train" in {each["class"] for each in result["per_class"]}


def test_files_that_are_no_images_are_named(run_folder, class_folders, tmp_path, capsys, caplog):
    (class_folders / "test" / "red_square" / "9.heic").write_bytes(b"?")
    (class_folders / "test" / "red_square" / "9.svg").write_bytes(b"<svg/>")
    result = zero_shot(run_folder, class_folders, tmp_path / "out")
    assert f"{class_folders / 'test'}: left out, since they are not images: 1 .heic, 1 .svg" in caplog.messages
    assert result["provenance"]["counts"]["num_images"] == 12
