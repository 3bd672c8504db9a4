"""``bimodal-eval zero-shot --class-map``: ImageNet's variants and maps from files, on generated folders."""

from __future__ import annotations

import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from timm.data import ImageNetInfo

from bimodal_cl.data.labelled.imagenet_variants import VARIANTS, variant_map
from eval.cli import main
from tests.refusals import read_mistake, refused
from tests.test_eval_commands.conftest import COLOURS, draw, zero_shot

# Public members: ImageNet-A begins with the stingray, ImageNet-R with the goldfish.
STINGRAY, GOLDFISH, TENCH, TOILET_PAPER = "n01498041", "n01443537", "n01440764", "n15075141"
BACKPACK = "backpack, back pack, knapsack, packsack, rucksack, haversack"
IN_IMAGENET = {"Alarm clock": "analog clock; digital clock", "Backpack": BACKPACK}


def write_folders(root, folders, count=2):
    for number, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            draw(list(COLOURS)[number % 6], 100 * number + index).save(root / folder / f"{index}.png")
    return root


def test_the_classes_of_every_variant(tmp_path):
    sizes = {variant: len(variant_map(variant, tmp_path).names) for variant in VARIANTS if variant[0] == "i"}
    assert sizes == {"imagenet-a": 200, "imagenet-r": 200, "imagenet-sketch": 1000, "imagenet-v2": 1000}
    names = dict(zip(ImageNetInfo("imagenet-1k").label_names(), open_clip.IMAGENET_CLASSNAMES, strict=True))
    a, r = variant_map("imagenet-a", tmp_path).names, variant_map("imagenet-r", tmp_path).names
    assert a[STINGRAY] == [names[STINGRAY]] == ["stingray"] and GOLDFISH not in a
    assert r[GOLDFISH] == ["goldfish"] and TENCH not in r
    assert variant_map("imagenet-sketch", tmp_path).names[TOILET_PAPER] == ["toilet paper"]
    numbered = variant_map("imagenet-v2", tmp_path).names
    assert numbered["0"] == ["tench"] and numbered["999"] == ["toilet paper"]


def test_candidates_are_the_variants_own_classes(run_folder, tmp_path, capsys):
    data = write_folders(tmp_path / "imagenet-r", [GOLDFISH, "n01484850", TENCH])
    flags = ("--class-map", "imagenet-r", "--templates", "photo")
    result = zero_shot(run_folder, data, tmp_path / "a", *flags)
    assert result["dataset"] == "imagenet-r"
    counts = result["provenance"]["counts"]
    assert (counts["num_images"], counts["num_classes"]) == (4, 200)
    assert result["provenance"]["chance"]["acc1"] == pytest.approx(1 / 200)
    assert result["provenance"]["class_map"] == "imagenet-r"
    shown = capsys.readouterr().out
    assert f"1 of 3 classes of the data are not in imagenet-r and are left out, with 2 images: {TENCH}" in shown
    assert "198 classes of imagenet-r are not in the data; they stay candidates" in shown


def test_numbered_folders_of_v2(run_folder, tmp_path):
    data = write_folders(tmp_path / "v2", ["1", "10", "999"])
    result = zero_shot(run_folder, data, tmp_path / "a", "--class-map", "imagenet-v2", "--templates", "photo")
    assert result["provenance"]["class_of_folder"] == {"1": "goldfish", "10": "brambling", "999": "toilet paper"}
    assert len(open_clip.IMAGENET_CLASSNAMES) - result["provenance"]["counts"]["num_distinct_classes"] == 2


@pytest.fixture
def objectnet(tmp_path):
    """ObjectNet's layout: two classes among ImageNet's and one that is not."""
    root = tmp_path / "objectnet"
    write_folders(root / "objectnet-1.0" / "images", ["alarm_clock", "backpack", "air_freshener"], count=3)
    (root / "objectnet-1.0" / "mappings").mkdir()
    folders = {"alarm_clock": "Alarm clock", "backpack": "Backpack", "air_freshener": "Air freshener"}
    for name, content in (("folder_to_objectnet_label", folders), ("objectnet_to_imagenet_1k", IN_IMAGENET)):
        (root / "objectnet-1.0" / "mappings" / f"{name}.json").write_text(json.dumps(content))
    return root


def test_objectnet_by_its_own_names_and_by_imagenets(run_folder, tiny_model, objectnet, tmp_path):
    own = zero_shot(run_folder, objectnet, tmp_path / "a", "--class-map", "objectnet", "--templates", "photo")
    assert own["dataset"] == "objectnet" and own["provenance"]["counts"]["num_images"] == 6
    assert [each["class"] for each in own["per_class"]] == ["alarm clock", "backpack"]
    flags = ("--class-map", "objectnet-imagenet", "--templates", "photo", "--name", "by_imagenet")
    mapped = zero_shot(run_folder, objectnet, tmp_path / "b", *flags)
    assert mapped["provenance"]["chance"]["acc1"] == 0.5
    paths = sorted((objectnet / "objectnet-1.0" / "images").glob("[ab]*/*.png"))
    paths = [path for path in paths if path.parent.name != "air_freshener"]
    names = ["analog clock", "digital clock", "backpack"]
    with torch.no_grad():
        texts = tiny_model.encode_text([f"a photo of a {name}." for name in names])
        images = torch.cat([tiny_model.encode_image(tiny_model.preprocess(Image.open(path))[None]) for path in paths])
    guesses = np.array([0, 0, 1])[(images @ texts.T).argmax(dim=1).numpy()]
    hits = guesses == [path.parent.name == "backpack" for path in paths]
    assert mapped["metrics"]["acc1"] == pytest.approx(hits.mean())


def test_objectnet_without_its_files_is_refused(objectnet, tmp_path):
    with refused("--class-map objectnet: .*objectnet_to_imagenet_1k.json: cannot be read as JSON: No such file"):
        (objectnet / "objectnet-1.0" / "mappings" / "objectnet_to_imagenet_1k.json").unlink()
        variant_map("objectnet", objectnet)
    with refused("no folder_to_objectnet_label.json, which comes with ObjectNet, in .*empty"):
        variant_map("objectnet", tmp_path / "empty")


def test_a_map_from_a_file_gives_a_class_several_names(run_folder, class_folders, tmp_path, capsys):
    file = tmp_path / "map.json"
    file.write_text(json.dumps({"red_square": ["crimson", "scarlet"], "Blue square": "navy", "white_square": "snow"}))
    result = zero_shot(run_folder, class_folders, tmp_path / "a", "--class-map", file)
    assert [each["class"] for each in result["per_class"]] == ["red square", "navy", "snow"]
    assert result["provenance"]["class_of_folder"] == {
        "blue_square": "navy",
        "red_square": "red square",
        "white_square": "snow",
    }
    shown = capsys.readouterr().out
    assert (
        "folder red_square = 'crimson, scarlet'" in shown and "3 of 6 classes of the data are not in map.json" in shown
    )
    again = zero_shot(run_folder, class_folders, tmp_path / "b", "--class-map", file, "--workers", 1)
    assert again["metrics"] == result["metrics"]


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        ({"crimson_square": "red"}, (), "has none of the 6 classes of six_colours, such as 'black_square'"),
        ({"red_square": []}, (), "'red_square' must have a name or a list of names, got []"),
        ({"red_square": 3}, (), "'red_square' must have a name or a list of names, got 3"),
        ([], (), "must hold an object of classes and names"),
        ({"red_square": "red"}, (), "needs at least two classes"),
        (
            {"red_square": "red", "blue_square": "b"},
            ("--classnames", "imagenet"),
            "--class-map names the classes",
        ),
        (None, (), "imagenet-x: no such file; did you mean 'imagenet-"),
    ],
)
def test_mistakes_are_named(content, flags, message, run_folder, class_folders, tmp_path, capsys):
    file = tmp_path / "map.json"
    file.write_text(json.dumps(content))
    given = "imagenet-x" if content is None else file
    error = read_mistake(capsys, main, "zero-shot", run_folder, "--data", class_folders, "--class-map", given, *flags)
    assert message in error
