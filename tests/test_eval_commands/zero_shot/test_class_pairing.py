"""``bimodal-eval zero-shot`` on numbered folders, repeated names and labels of several classes."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from tests.test_data.tiny_shards import write_tar
from tests.test_eval_commands.conftest import COLOURS, as_png, draw, retrieve, zero_shot


def write_folders(root, colour_of_folder, count=3):
    for number, (folder, colour) in enumerate(colour_of_folder.items()):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            draw(colour, 100 * number + index).save(root / folder / f"{index}.png")


def test_numbered_folders_are_scored_as_the_same_images_under_their_names(run_folder, tmp_path, capsys):
    names = list(COLOURS)  # red, green, blue, white, black, yellow
    write_folders(tmp_path / "named", {name: name for name in sorted(names)})
    numbered = {str(10 * names.index(name)): name for name in sorted(names)}
    write_folders(tmp_path / "numbered", numbered)
    lines = [names[line // 10] if line % 10 == 0 else f"word {line}" for line in range(51)]
    (tmp_path / "numbered" / "classnames.txt").write_text("\n".join(lines))
    result = zero_shot(run_folder, tmp_path / "numbered", tmp_path / "a")
    assert result["provenance"]["class_of_folder"] == {str(10 * n): name for n, name in enumerate(names)}
    assert [each["class"] for each in result["per_class"]] == names
    assert result["provenance"]["counts"]["num_classes"] == 51
    assert result["provenance"]["chance"]["acc1"] == 1 / 51
    said = capsys.readouterr().out
    assert "folders are class numbers, from 0" in said and "folder 30 = 'white'" in said
    # With one class name per folder, the scores equal those of folders that carry the names.
    (tmp_path / "numbered" / "classnames.txt").unlink()
    for old, new in numbered.items():
        (tmp_path / "numbered" / old).rename(tmp_path / "numbered" / f"0{names.index(new) + 1}")
    file = tmp_path / "six.txt"
    file.write_bytes("\r\n".join(names).encode("utf-8-sig"))
    by_number = zero_shot(run_folder, tmp_path / "numbered", tmp_path / "b", "--classnames", file)
    by_name = zero_shot(run_folder, tmp_path / "named", tmp_path / "c")
    assert by_number["metrics"] == by_name["metrics"]
    assert by_number["confusions"] == by_name["confusions"]


def test_repeated_names_score_like_one_class(run_folder, tmp_path, capsys):
    colours = {"n1": "red", "n2": "red", "n3": "blue", "n4": "white", "n5": "black"}
    write_folders(tmp_path / "five", colours)
    file = tmp_path / "names.txt"
    file.write_text("\n".join(colours.values()))
    result = zero_shot(run_folder, tmp_path / "five", tmp_path / "a", "--classnames", file)
    said = capsys.readouterr().out
    assert "'red' (classes 0, 1)" in said and "25.0 %" in said  # chance among four candidates
    assert result["provenance"]["counts"]["num_distinct_classes"] == 4
    for index in range(3):
        (tmp_path / "five" / "n2" / f"{index}.png").rename(tmp_path / "five" / "n1" / f"1{index}.png")
    (tmp_path / "five" / "n2").rmdir()
    file.write_text("red\nblue\nwhite\nblack\n")
    merged = zero_shot(run_folder, tmp_path / "five", tmp_path / "b", "--classnames", file)
    assert result["metrics"]["acc1"] == merged["metrics"]["acc1"]
    assert "acc5" not in result["metrics"]
    assert result["confusions"] == merged["confusions"]
    assert len(result["per_class"]) == 5 and len(merged["per_class"]) == 4


def test_labels_of_several_classes_are_scored_by_mean_average_precision(run_folder, tiny_model, tmp_path, capsys):
    names, rng = ["red", "blue", "white"], np.random.default_rng(0)
    members, images, targets = [], [], (rng.random((20, 3)) < 0.4).astype(np.int64)
    for number, vector in enumerate(targets):
        images.append(draw(list(COLOURS)[number % 6], number))
        out = io.BytesIO()
        np.save(out, vector)
        members += [(f"s{number}.png", as_png(images[-1])), (f"s{number}.npy", out.getvalue())]
    folder = tmp_path / "wds_sets"
    write_tar(folder / "test" / "0.tar", members)
    (folder / "classnames.txt").write_text("\n".join(names))
    (folder / "zeroshot_classification_templates.txt").write_text("a {c} tile\n")
    result = zero_shot(run_folder, folder, tmp_path / "out")
    with torch.no_grad():
        classes = torch.cat([tiny_model.encode_text([f"a {name} tile"]) for name in names])
        sims = torch.cat([tiny_model.encode_image(tiny_model.preprocess(image)[None]) for image in images]) @ classes.T
    expected = []
    for column, right in zip(sims.T.numpy(), targets.T, strict=True):
        ranked = right[np.argsort(-column)]
        expected.append((np.cumsum(ranked) / np.arange(1, 21) * ranked).sum() / ranked.sum())
    assert set(result["metrics"]) == {"mean_average_precision"}
    assert result["metrics"]["mean_average_precision"] == pytest.approx(np.mean(expected))
    assert [each["average_precision"] for each in result["per_class"]] == pytest.approx(expected)
    assert [each["count"] for each in result["per_class"]] == targets.sum(axis=0).tolist()
    assert "mean average precision" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [("--batch-size", 1), ("--batch-size", 7, "--workers", 2)])
def test_scores_do_not_depend_on_how_they_are_computed(flags, run_folder, class_folders, shards, tmp_path):
    for command, data in ((zero_shot, class_folders), (retrieve, shards)):
        first = command(run_folder, data, tmp_path / data.name / "first")
        second = command(run_folder, data, tmp_path / data.name / "second", *flags)
        assert {**first, "provenance": None} == {**second, "provenance": None}
