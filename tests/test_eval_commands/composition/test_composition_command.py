"""``bimodal-eval composition`` end to end, against choices that this file computes from the encoder's features."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from bimodal_cl.models import DualEncoder
from eval.cli import main
from tests.test_eval_commands.conftest import draw, run_command

compose = partial(run_command, "composition")


def similarity(model, path, text):
    with torch.no_grad():
        image = model.encode_image(model.preprocess(Image.open(path).convert("RGB"))[None])
        return float(image.double()[0] @ model.encode_text([text]).double()[0])


def test_sugar_crepe_scores_each_subset_and_their_mean(run_folder, sugar_crepe, tiny_model, tmp_path, capsys):
    result = compose(run_folder, sugar_crepe, tmp_path / "out", "--examples", 3)
    assert (tmp_path / "out" / "image_caption_selection_sugar.json").is_file()
    margins, shares = {}, []
    for subset in ("add_att", "swap_obj"):
        entries = json.loads((sugar_crepe / f"{subset}.json").read_text())
        for key, entry in entries.items():
            right, wrong = (
                similarity(tiny_model, sugar_crepe / "images" / entry["filename"], entry[name])
                for name in ("caption", "negative_caption")
            )
            margins[subset, key] = right - wrong
        shares.append(np.mean([margins[subset, key] > 0 for key in entries]))
        assert result["metrics"][f"acc_{subset}"] == pytest.approx(shares[-1])
    assert result["metrics"]["acc"] == pytest.approx(np.mean(shares))
    assert list(result["metrics"]) == list(result["intervals"]) == ["acc", "acc_add_att", "acc_swap_obj"]
    assert result["provenance"]["counts"] == {"num_examples": 10, "num_images": 10, "num_texts": 20, "num_skipped": 0}
    assert result["provenance"]["subsets"] == {"add_att": 6, "swap_obj": 4}
    misses = {place for place, margin in margins.items() if margin <= 0}
    assert len(result["examples"]) == min(3, len(misses)) > 0
    for example in result["examples"]:
        assert (example["subset"], example["key"]) in misses
        right, wrong = example["similarities"][0]
        assert right - wrong == pytest.approx(margins[example["subset"], example["key"]], abs=1e-6)
    shown = capsys.readouterr().out
    assert "10 examples in 2 subsets" in shown and "swap_obj" in shown and "50.0 %" in shown


def test_winoground_scores_text_image_and_group(run_folder, winoground, winoground_rows, tiny_model, tmp_path, capsys):
    result = compose(run_folder, winoground, tmp_path / "out", "--examples", 100)
    text, image = [], []
    for row in winoground_rows:
        sims = [
            [similarity(tiny_model, winoground / "data" / "images" / f"{row[at]}.png", row[said]) for said in CAPTIONS]
            for at in ("image_0", "image_1")
        ]
        text.append(sims[0][0] > sims[0][1] and sims[1][1] > sims[1][0])
        image.append(sims[0][0] > sims[1][0] and sims[1][1] > sims[0][1])
    group = np.array(text) & np.array(image)
    assert result["metrics"] == {"text_acc": np.mean(text), "image_acc": np.mean(image), "acc": np.mean(group)}
    assert result["provenance"]["chance"] == {"text_acc": 0.25, "image_acc": 0.25, "acc": pytest.approx(1 / 6)}
    assert {int(example["key"]) for example in result["examples"]} == set(np.flatnonzero(~group).tolist())
    assert "group" in capsys.readouterr().out


CAPTIONS = ("caption_0", "caption_1")


@pytest.mark.parametrize("layout", ["saved", "parquet", "paths"])
def test_tables_score_as_the_lines(layout, run_folder, winoground, winoground_rows, tmp_path):
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageType

    expected = compose(run_folder, winoground, tmp_path / "lines")["metrics"]
    pictures = winoground / "data" / "images"
    names = ("image_0", "image_1")
    folder = tmp_path / "table"
    kinds = {name: Value("string") if layout == "paths" else ImageType() for name in names}
    kinds["preview"] = ImageType()  # of no interest, and broken
    features = Features({"id": Value("int64"), **dict.fromkeys(CAPTIONS, Value("string")), **kinds})
    rows = [
        {**row, **{name: row[name] if layout == "paths" else str(pictures / f"{row[name]}.png") for name in names}}
        for row in winoground_rows
    ]
    broken = {"bytes": b"no image", "path": None}
    table = Dataset.from_list([{**row, "preview": broken} for row in rows], features=features)
    if layout == "saved":
        table.save_to_disk(str(folder))
    else:
        folder.mkdir()
        table.to_parquet(str(folder / "test-00000-of-00001.parquet"))
    flags = ("--images", pictures) if layout == "paths" else ()
    assert compose(run_folder, folder, tmp_path / "out", *flags)["metrics"] == expected


def test_two_models_are_compared_and_a_tie_is_a_miss(run_folder, sugar_crepe, tmp_path, capsys):
    entries = json.loads((sugar_crepe / "add_att.json").read_text())
    for entry in entries.values():
        entry["negative_caption"] = entry["caption"]
    (sugar_crepe / "add_att.json").write_text(json.dumps(entries))
    older = run_folder / "checkpoints" / "step_00000004"
    flags = ["--data", str(sugar_crepe), "--to", str(tmp_path / "out"), "--language", "de"]
    assert main(["composition", str(run_folder), str(older), *flags]) == 0
    results = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/*~de.json")]
    assert [result["metrics"]["acc_add_att"] for result in results] == [0.0, 0.0]
    assert results[0]["compared"][0]["scores"]["acc"]["difference"] == 0.0
    assert results[0]["language"] == "de"
    assert "not distinguishable" in capsys.readouterr().out


def test_an_unreadable_image_leaves_its_example_out_and_is_named(run_folder, winoground, tmp_path, capsys):
    (winoground / "data" / "images" / "ex_3_img_1.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    result = compose(run_folder, winoground, tmp_path / "out")
    assert result["provenance"]["counts"] == {"num_examples": 14, "num_images": 28, "num_texts": 28, "num_skipped": 1}
    assert "line 4: image 'ex_3_img_1.png' cannot be used" in result["provenance"]["skipped"][0]
    assert "left out: 1 of 15, the first for " in capsys.readouterr().out


def change_caption(sugar_crepe):
    path = sugar_crepe / "add_att.json"
    entries = json.loads(path.read_text())
    entries["2"]["caption"] = "something else"
    path.write_text(json.dumps(entries))


@pytest.mark.parametrize("layout", ["sugar_crepe", "winoground"])
def test_kept_features_give_the_same_scores(layout, request, run_folder, tmp_path, monkeypatch):
    data = request.getfixturevalue(layout)
    broken = {"sugar_crepe": "images/1.png", "winoground": "data/images/ex_3_img_1.png"}[layout]
    (data / broken).write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    results, sources = [], []
    for name, flags in (
        ("none", ()),
        ("first", ("--cache", tmp_path / "kept")),
        ("second", ("--cache", tmp_path / "kept")),
    ):
        if name == "second":
            for tower in ("encode_image", "encode_text"):
                monkeypatch.setattr(DualEncoder, tower, None)  # cannot be called
        result = compose(run_folder, data, tmp_path / name, *flags)
        result["provenance"].pop("command")
        sources.append({each["of"]: each["from_cache"] for each in result["provenance"].pop("features", [])})
        results.append(result)
    assert sources == [{}, {"images": False, "captions": False}, {"images": True, "captions": True}]
    assert results[0] == results[1] == results[2] and results[0]["provenance"]["counts"]["num_skipped"] > 0


def test_changed_captions_and_images_have_other_kept_features(run_folder, sugar_crepe, tmp_path):
    def from_cache(name):
        result = compose(run_folder, sugar_crepe, tmp_path / name, "--cache", tmp_path / "kept")
        return {each["of"]: each["from_cache"] for each in result["provenance"]["features"]}

    from_cache("a")
    change_caption(sugar_crepe)
    assert from_cache("b") == {"images": True, "captions": False}
    draw("red", 77).save(sugar_crepe / "images" / "1.png")
    assert from_cache("c") == {"images": False, "captions": True}


def test_a_watched_checkpoint_is_scored_again_on_other_data(run_folder, sugar_crepe, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(run_folder, run, symlinks=True)
    (run / "metrics.jsonl").write_text('{"event": "summary", "step": 8}\n')

    def scored_now():
        assert main(["composition", "--watch", str(run), "--data", str(sugar_crepe)]) == 0
        return int(re.search(r"(\d+) of its checkpoints were scored now", capsys.readouterr().out)[1])

    assert [scored_now(), scored_now()] == [2, 0]
    change_caption(sugar_crepe)
    assert [scored_now(), scored_now()] == [2, 0]
    draw("red", 77).save(sugar_crepe / "images" / "1.png")
    assert [scored_now(), scored_now()] == [2, 0]
    (sugar_crepe / "swap_obj.json").rename(sugar_crepe / "swap_att.json")
    assert [scored_now(), scored_now()] == [2, 0]
