"""Temperatures are set beside the counts of concepts from a table, and beside visits that the sample order tells."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file
from scipy import stats

from bimodal_cl.data import Manifest, open_stream
from bimodal_cl.data.shards.concepts import ImageConcepts
from bimodal_cl.data.shards.mixture import Mixture
from eval import cli
from eval.temperatures.correlation import correlate
from eval.temperatures.frequency import correlate_with_concepts, mean_by_concept
from eval.temperatures.learned import LearnedTemperatures
from eval.temperatures.visits import replay_order
from tests.refusals import read_mistake
from tests.test_data.tiny_shards import caption_count, encode_image, write_manifest, write_tar
from tests.test_report.conftest import CONCEPTS

STEPS = 7  # of 64 of 180 images: three epochs and a half


def write_pairs(folder, numbers):
    members = []
    for number in numbers:
        captions = "\n".join(f"{number} {place}" for place in range(caption_count(number)))
        members += [(f"{number}.png", encode_image(number)), (f"{number}.txt", captions.encode())]
    write_tar(folder / "0.tar", members)
    write_manifest(folder, [("0.tar", len(numbers), sum(map(caption_count, numbers)))])
    return Manifest.load(folder)


def test_visits_are_those_of_the_stream(tmp_path):
    manifests = [write_pairs(tmp_path / "a", range(11)), write_pairs(tmp_path / "b", range(11, 30))]
    mixture = Mixture(manifests, [2.5, 0.7])
    order = {
        "seed": 3,
        "train.global_batch_size": 4,
        "data.rows_per_epoch": list(mixture.rows),
        "data.shuffle_window": 5,
    }
    images, texts = np.zeros(30, dtype=int), np.zeros(mixture.num_texts, dtype=int)
    steps = 0
    for batch in open_stream(mixture, 4, 8, seed=3, num_epochs=3, shuffle_window=5):
        visits = replay_order(Mixture(manifests), steps, order)
        assert np.array_equal(visits.image, images) and np.array_equal(visits.text, texts)
        np.add.at(images, batch.image_ids.numpy(), 1)
        np.add.at(texts, batch.text_ids.numpy(), 1)
        steps += 1
    assert steps == 3 * (sum(mixture.rows) // 4)


def test_correlations_are_those_of_scipy():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 9, 200), rng.integers(0, 5, 200)
    second = second + first
    assert correlate(first, second).value == pytest.approx(stats.spearmanr(first, second).statistic)


def test_a_partial_correlation_is_that_of_what_the_third_leaves():
    rng = np.random.default_rng(1)
    given = rng.standard_normal(300)
    first, second = given + rng.standard_normal(300), given + rng.standard_normal(300)
    ranks = [stats.rankdata(each) for each in (first, second, given)]
    left = [each - np.polyval(np.polyfit(ranks[2], each, 1), ranks[2]) for each in ranks[:2]]
    found = correlate(first, second, given)
    assert found.value == pytest.approx(np.corrcoef(left)[0, 1])
    assert found.low < 0 < found.high and correlate(first, second).low > 0.2
    constant = correlate(first, second, np.ones(300))
    assert constant == correlate(first, second)
    assert np.isnan(correlate(first, second, second).value)


def test_whole_groups_are_drawn():
    """Points of a group that say the same leave the interval as wide as that of one point a group."""
    rng = np.random.default_rng(2)
    first = rng.standard_normal(40)
    second = first + rng.standard_normal(40)
    alone = correlate(first, second)
    many, groups = (np.repeat(first, 25), np.repeat(second, 25)), np.repeat(np.arange(40), 25)
    grouped = correlate(*many, groups=groups)
    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high))
    points = correlate(*many)
    assert points.high - points.low < 0.4 * (alone.high - alone.low)


def test_concepts_of_visited_anchors():
    concepts = ImageConcepts.from_names(["dog", "cat", "dog", "", "dog", "cat", "sea"])
    owners = np.repeat(np.arange(7), 2)
    images = LearnedTemperatures(np.array([0, 1, 2, 3, 6]), np.array([3.0, 2, 5, 9, 1]), 7)
    texts = LearnedTemperatures(np.array([0, 5, 6, 10]), np.array([4.0, 6, 9, 2]), 14)
    rows = mean_by_concept(concepts, owners, images, texts)
    assert [(row.concept, row.count, row.image_tau, row.text_tau) for row in rows] == [
        ("dog", 3, 4.0, 5.0),
        ("cat", 2, 2.0, 2.0),
    ]
    found = correlate_with_concepts(concepts, owners, {"image": images, "text": texts}, None)
    assert found["image"]["tau"].num_points == 4 and found["text"]["tau"].num_points == 3
    assert found["image"]["tau"].value == pytest.approx(stats.spearmanr([3, 2, 5, 1], [3, 2, 3, 1]).statistic)
    assert set(found["image"]) == {"tau"}  # neither log_u nor visits


@pytest.fixture
def visited_run(run):
    """The finished run as one of a few steps, whose temperatures follow the visits alone."""
    manifest = Manifest.load("data/train")
    order = {
        "seed": 5,
        "train.global_batch_size": 64,
        "data.rows_per_epoch": [180],
        "data.shuffle_window": 8192,
        "data.shards": Mixture([manifest]).digest,
    }
    visits = replay_order(Mixture([manifest]), STEPS, order)
    tables = load_file(run / "checkpoints/latest/loss.safetensors")
    rng = np.random.default_rng(0)
    for kind in ("image", "text"):
        counts = visits.of(kind)
        noise = 0.001 * rng.random(len(counts))
        tables[f"{kind}_anchors.tau"] = (0.1 - 0.02 * counts + noise).astype(np.float32)
        tables[f"{kind}_anchors.log_u"] = np.where(counts > 0, -1.0, -np.inf).astype(np.float32)
    save_file(tables, run / "checkpoints/latest/loss.safetensors")
    state = {"step": STEPS, "identity": order, "data": {"replaced": {}}}
    (run / "checkpoints/latest/state.json").write_text(json.dumps(state))
    return run, visits


def write_concepts(path):
    """The concept that each first caption names, by key; image 7 has none."""
    rows = []
    for image_id, row in enumerate(drawn_concepts()):
        rows.append((image_id, f"{image_id:06d}", "" if image_id == 7 else row))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("image_id", "key", "concept"), *rows])
    return path


def drawn_concepts():
    from bimodal_cl.data.shards.reader import RowReader

    reader = RowReader(Manifest.load("data/train"))
    captions = [reader.read_captions(image_id)[1][1] for image_id in range(180)]
    reader.close()
    return [next(concept for concept in CONCEPTS if concept in caption) for caption in captions]


def test_the_command_joins_concepts_and_visits(visited_run, tmp_path, capsys):
    run, visits = visited_run
    table = write_concepts(tmp_path / "concepts.csv")
    flags = ["temperatures", str(run), "--sample", "0", "--top", "0", "--concepts", str(table)]
    assert cli.main([*flags, "--to", str(tmp_path / "all.parquet")]) == 0
    printed = capsys.readouterr().out
    assert "tau given visits" in printed and "Visits were not counted" not in printed
    names = drawn_concepts()
    names[7] = None
    rows = pq.read_table(tmp_path / "all.parquet").to_pylist()
    assert len(rows) == 540
    for row in rows:
        assert row["visits"] == visits.of(row["kind"])[row["id"]]
        assert row["visited"] == (row["visits"] > 0)
        assert row["concept"] == names[row["image_id"]]
        assert row["concept_count"] == (names.count(row["concept"]) if row["concept"] else None)
    assert cli.main([*flags, "--to", str(tmp_path / "all.json")]) == 0
    content = json.loads((tmp_path / "all.json").read_text())
    found = content["correlations"]
    assert set(found) == {"concept_counts", "concept_frequency", "visits"}
    assert found["visits"]["text"]["tau"]["spearman"] < -0.8
    both = found["concept_frequency"]["text"]
    assert (
        both["tau_given_visits"]["num_points"]
        == both["tau"]["num_points"]
        == (visits.text > 0)[:14].sum() + (visits.text > 0)[16:].sum()
    )
    assert both["log_u"]["spearman"] is None  # constant
    assert content["texts"][9]["visits"] == visits.text[9] and content["images"][9]["concept"] == names[9]


def test_visits_that_are_not_known_are_not_shown(visited_run, tmp_path, capsys):
    run, _ = visited_run
    table = write_concepts(tmp_path / "concepts.csv")
    flags = ["temperatures", str(run), "--sample", "0", "--concepts", str(table), "--to", str(tmp_path / "all.parquet")]
    path = run / "checkpoints/latest/state.json"
    state = json.loads(path.read_text())
    order = state["identity"]
    for changed, why in (
        ({"identity": {**order, "seed": 6}}, "the order of the samples does not visit the images that the tables know"),
        ({"data": {"replaced": {"undecodable": 2}}}, "2 faulty samples were replaced"),
        ({"identity": {"data.shards": order["data.shards"]}}, "does not name the order of its samples"),
        ({"identity": {**order, "data.shards": "other"}}, "not the shards of the training"),
        ({"identity": {**order, "train.global_batch_size": 500}}, "do not fill one global batch"),
    ):
        path.write_text(json.dumps({**state, **changed}))
        assert cli.main(flags) == 0
        printed = capsys.readouterr().out
        assert why in printed.partition("Visits were not counted: ")[2]
        assert "given visits" not in printed and "concept, with its" in printed
        assert {row["visits"] for row in pq.read_table(tmp_path / "all.parquet").to_pylist()} == {None}
    path.write_text(json.dumps(state))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"event": "non_finite", "step": 3}) + "\n")
    assert cli.main(flags) == 0
    assert "steps that were not finite were left out" in capsys.readouterr().out


def test_a_table_of_other_shards_is_refused(run, tmp_path, capsys, monkeypatch):
    table = tmp_path / "concepts.csv"
    table.write_text("image_id,key,concept\n3,000004,a\n")
    flags = ["temperatures", run, "--concepts", table]
    assert "image_id 3 has the key '000004', but '000003'" in read_mistake(capsys, cli.main, *flags)
    table.write_text("image_id,concept\n180,a\n")
    assert "image_id 180 is outside [0, 180)" in read_mistake(capsys, cli.main, *flags)
    table.write_text("key,concept\nanother,a\n")
    assert "no image of data/train; its first key is 'another', that of the shards '000000'" in read_mistake(
        capsys, cli.main, *flags
    )
    monkeypatch.chdir(Path("/"))
    assert "--concepts: the training data were not found" in read_mistake(capsys, cli.main, *flags)
