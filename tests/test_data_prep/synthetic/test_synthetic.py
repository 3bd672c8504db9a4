"""The built-in data set: what it promises, and the same bytes from the same seed."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bimodal_cl.data import open_stream
from bimodal_cl.data.labelled.open import open_labelled
from data_prep.cli import COMMANDS, main
from data_prep.synthetic import source
from data_prep.synthetic.captions import ZERO_SHOT_TEMPLATES, describe
from data_prep.synthetic.concepts import COLOURS, CONCEPTS, SHAPES, compute_zipf_counts
from data_prep.synthetic.drawing import draw_picture
from data_prep.synthetic.scenes import BACKGROUNDS, GAP, draw_scene
from tests.test_data_prep.raw_material import captions_of, file_bytes, image_of, open_bytes, read_folder

ROOT = Path(__file__).parents[3]
SMALL = ("--num-train", "400", "--num-val", "8", "--num-retrieval", "16", "--images-per-concept", "1", "--side", "32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The default retrieval and zero-shot splits, with a smaller training split."""
    to = tmp_path_factory.mktemp("synthetic") / "to"
    sizes = ("--num-train", "400", "--num-val", "32", "--images-per-concept", "4")
    assert main(["write", "synthetic", "--to", str(to), *sizes]) == 0
    return to


def default_options():
    _, args = COMMANDS.parse("bimodal-prep", ["write", "synthetic", "--to", "x"])
    return source.SyntheticOptions(0, args.num_train, 256, args.num_retrieval, args.images_per_concept, 64, args.zipf)


def test_layout(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["concepts.json", "retrieval", "train", "val", "zero_shot"]
    assert len(SHAPES) >= 12 and len(COLOURS) >= 8 and len(set(map(str, CONCEPTS))) == len(CONCEPTS) >= 96
    for split, count in (("train", 400), ("val", 32), ("retrieval", 512)):
        samples = read_folder(folder / split)
        assert len(samples) == count
        assert all(open_bytes(image_of(sample)).size == (64, 64) for sample in samples[:5])
        assert all(len(set(captions_of(sample))) == len(captions_of(sample)) >= 2 for sample in samples)


def test_the_long_tail_follows_zipf():
    """Rank and frequency of the default training split: a straight line of slope -1 in logarithms, above the floor."""
    options = default_options()
    chosen = source.draw_training_concepts(options)
    assert len(chosen) == options.num_train >= 5000
    assert {len(concepts) for concepts in chosen} == {1, 2}
    assert all(len(set(concepts)) == len(concepts) for concepts in chosen)  # "a and a" is no pair
    counts = np.sort(list(Counter(c for concepts in chosen for c in concepts).values()))[::-1]
    assert len(counts) == len(CONCEPTS) and counts[-1] >= source.MIN_OCCURRENCES
    ranks = np.arange(1, len(counts) + 1)
    slope = np.polyfit(np.log(ranks), np.log(counts - source.MIN_OCCURRENCES), 1)[0]
    assert slope == pytest.approx(-1, abs=0.05)
    assert counts[0] > 50 * counts[-1]
    assert counts[:10].sum() > 0.5 * counts.sum()


@pytest.mark.parametrize("zipf", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("num_train", [384, 5000])
def test_pairs_differ_whatever_the_tail(zipf, num_train):
    options = source.SyntheticOptions(3, num_train, 1, 1, 1, 32, zipf)
    chosen = source.draw_training_concepts(options)
    assert len(chosen) == num_train and all(len(set(concepts)) == len(concepts) for concepts in chosen)
    assert set().union(*chosen) == set(CONCEPTS)


def test_zipf_counts():
    assert compute_zipf_counts(100, 4, 0.0, 5).tolist() == [25, 25, 25, 25]
    assert compute_zipf_counts(25, 3, 1.0, 1).tolist() == [13, 7, 5]  # 1 + 22 * (6, 3, 2) / 11
    assert compute_zipf_counts(26, 3, 1.0, 1).sum() == 26
    with pytest.raises(ValueError, match="11 occurrences are too few for 3 concepts, 4 times each"):
        compute_zipf_counts(11, 3, 1.0, 4)


def test_concept_table_tells_what_is_in_train(folder):
    table = json.loads((folder / "concepts.json").read_text())
    names = [concept["concept"] for concept in table["concepts"]]
    counts = [concept["count"] for concept in table["concepts"]]
    shown = Counter(number for image in table["train_images"] for number in image)
    assert sorted(names) == sorted(map(str, CONCEPTS)) and counts == sorted(counts, reverse=True)
    assert counts == [shown[number] for number in range(len(names))]
    samples = read_folder(folder / "train")
    assert len(table["train_images"]) == len(samples)
    agree = 0
    for sample, numbers in zip(samples, table["train_images"], strict=True):
        agree += all(names[number] in captions_of(sample)[0] for number in numbers)
    assert agree > 0.4 * len(samples)  # the others say it with a synonym


def test_retrieval_descriptions_are_distinct(folder):
    samples = read_folder(folder / "retrieval")
    captions = [caption for sample in samples for caption in captions_of(sample)]
    assert len(samples) >= 500 and len(set(captions)) == len(captions) == 3 * len(samples)
    scenes = [scene for scene, _ in source.distinct_scenes(default_options(), source.RETRIEVAL)]
    assert len({scene.content() for scene in scenes}) == len(scenes) == len(samples)
    train = {caption for sample in read_folder(folder / "train") for caption in captions_of(sample)}
    assert len(train) > 800


def test_zero_shot_split_is_balanced_and_readable(folder):
    images = open_labelled(folder / "zero_shot")
    assert images.classnames == [str(concept) for concept in CONCEPTS]
    assert images.templates == list(ZERO_SHOT_TEMPLATES)
    assert Counter(images.labels) == dict.fromkeys(range(len(CONCEPTS)), 4)
    assert (folder / "zero_shot" / "test" / "nshards.txt").read_text().strip() == "1"
    picture, label = images[130]
    assert picture.mode == "RGB" and picture.size == (64, 64) and label == 130 % len(CONCEPTS)
    for index in range(0, len(images), 37):  # the colour of its class is in the picture
        picture, label = images[index]
        distance = np.abs(np.asarray(picture, dtype=float) - COLOURS[CONCEPTS[label].colour]).max(axis=2)
        assert (distance < 45).mean() > 0.01, images.classnames[label]


def test_train_streams(folder):
    stream = open_stream(folder / "train", batch_size=100, image_size=32)
    seen = np.concatenate([batch.image_ids for batch in stream])
    assert stream.steps == 4 and sorted(seen.tolist()) == list(range(400))


def test_scenes_are_as_they_are_described():
    for seed in range(300):
        rng = np.random.default_rng(seed)
        concepts = [CONCEPTS[n] for n in rng.choice(len(CONCEPTS), 1 + seed % 2, replace=False)]
        scene = draw_scene(rng, tuple(concepts))
        for thing in scene.things:
            for centre in (thing.x, thing.y):
                assert thing.diameter / 2 <= centre <= 1 - thing.diameter / 2  # inside
            assert (thing.size == "small") == (thing.diameter < 0.35)
        if scene.relation is not None:
            first, second = scene.things
            along = {"left": second.x - first.x, "above": second.y - first.y}
            along |= {"right": -along["left"], "below": -along["above"]}
            assert max(along, key=lambda relation: along[relation]) == scene.relation
            assert along[scene.relation] >= (first.diameter + second.diameter) / 2 + GAP - 1e-9  # apart
        words = describe(rng, scene, complete=True).split()
        assert len(words) >= 3


def test_every_shape_is_drawn_and_differs():
    pictures = []
    for shape in SHAPES:
        concept = next(c for c in CONCEPTS if c.shape == shape and c.colour == "red")
        rng = np.random.default_rng(1)
        scene = draw_scene(rng, (concept,))
        pictures.append(np.asarray(draw_picture(np.random.default_rng(2), scene, 64), dtype=float))
    for n, one in enumerate(pictures):
        for other in pictures[:n]:
            assert (np.abs(one - other).max(axis=2) > 60).sum() >= 15  # pixels
    colours = [*COLOURS.values(), *BACKGROUNDS.values()]
    for n, one in enumerate(colours):
        assert all(max(abs(a - b) for a, b in zip(one, other, strict=True)) > 40 for other in colours[:n])


def test_same_seed_same_bytes_whatever_the_hash_seed(write, tmp_path):
    for name, hash_seed in (("a", "1"), ("b", "2")):
        command = [sys.executable, "-m", "data_prep.cli", "write", "synthetic", "--to", str(tmp_path / name), *SMALL]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    assert write("synthetic", *SMALL, "--seed", 1, to="c").status == 0
    a, b, c = (file_bytes(tmp_path / name) for name in "abc")
    assert a == b
    assert {name for name in a if name.endswith(".tar") and a[name] == c[name]} == set()


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--num-train", 383), ("--num-val", 0), ("--zipf", 2.5), ("--zipf", "nan"), ("--side", 8), ("--seed", -1)],
)
def test_sizes_out_of_range(write, tmp_path, flag, value):
    error = write("synthetic", flag, value).error
    assert error.startswith(f"{flag} must be ") and f"got {value}" in error
    assert not (tmp_path / "to").exists()
