"""The comparison with CLIP_benchmark writes its data sets, runs our commands, and finds every score that differs.

CLIP_benchmark itself does not run here: a stand-in gives the results that a test prescribes.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import re
import tarfile
from pathlib import Path

import pytest

from bimodal_cl.data import open_labelled
from bimodal_cl.errors import UserError
from eval.cli import main as evaluate
from eval.pair_shards import open_pairs
from tests.benchmarks.clip_benchmark import sides
from tests.benchmarks.clip_benchmark.agreement import compare_metrics, find_misread
from tests.benchmarks.clip_benchmark.data_sets import DATA_SETS, write_data_set
from tests.benchmarks.measure.command import TimedCommand
from tests.test_data.tiny_shards import encode_image, write_tar
from tests.test_models.source_models import export_folder, open_clip_model

CLASSES = ("black_cat", "dog", "frog", "horse", "long-sleeve", "ship")
CIFAR, _, FLICKR = DATA_SETS


@pytest.fixture
def tars(tmp_path):
    """Tiny raw data: two images of each class, five images with two captions each, and images of another split."""
    folder = tmp_path / "tars"
    images = [
        (f"test/{name}/{number}.png", encode_image(20 * number + len(name))) for name in CLASSES for number in (1, 0)
    ]
    images.append(("train/zebra/0.png", encode_image(99)))
    write_tar(folder / "cifar10_test.tar", images)
    write_tar(folder / "clothing.tar", images)
    listing = [
        {
            "filename": f"{number}.png",
            "split": "train" if number == 2 else "test",
            "sentences": [{"raw": f" a thing  number {number} ."}, {"raw": f"{number} things\n."}],
        }
        for number in range(6)
    ]
    members = [(f"images/{number}.png", encode_image(number)) for number in range(6)]
    write_tar(folder / "flickr8k.tar", [*members, ("dataset.json", json.dumps({"images": listing}).encode())])
    return folder


def test_class_folders_become_labelled_shards(tars, tmp_path):
    assert write_data_set(CIFAR, tars, tmp_path / "wds_cifar10", num_shards=2) == 12
    assert (tmp_path / "wds_cifar10/test/nshards.txt").read_text() == "2\n"
    labelled = open_labelled(tmp_path / "wds_cifar10")
    assert labelled.name == "cifar10"
    assert labelled.classnames == ["black cat", "dog", "frog", "horse", "long-sleeve", "ship"]
    assert "a photo of a {c}." in labelled.templates
    assert sorted(labelled.labels) == sorted([*range(6)] * 2)
    for image, label in labelled:
        assert image.getpixel((0, 0))[0] % 20 == len(CLASSES[label])


def test_karpathys_format_becomes_shards_of_captions(tars, tmp_path):
    assert write_data_set(FLICKR, tars, tmp_path / "wds_flickr8k", num_shards=2) == 5
    assert (tmp_path / "wds_flickr8k/dataset_type.txt").read_text() == "retrieval\n"
    pairs = open_pairs(tmp_path / "wds_flickr8k", "test")
    assert (pairs.num_images, pairs.num_texts) == (5, 10)
    with tarfile.open(tmp_path / "wds_flickr8k/test/0.tar") as tar:
        assert tar.getnames()[:2] == ["000000.png", "000000.txt"]
        assert tar.extractfile("000002.png").read() == encode_image(3)  # the third of the test split
        assert tar.extractfile("000002.txt").read() == b"a thing number 3 .\n3 things ."


def test_a_part_is_spread_over_the_classes(tars, tmp_path):
    assert write_data_set(CIFAR, tars, tmp_path / "data", num_shards=1, limit=6) == 6
    assert sorted(open_labelled(tmp_path / "data").labels) == [*range(6)]


def test_raw_data_of_another_format_are_named(tars, tmp_path):
    write_tar(tars / "flickr8k.tar", [("images/0.png", b"")])
    write_tar(tars / "cifar10_test.tar", [("train/cat/0.png", b"")])
    (tars / "clothing.tar").unlink()
    for data_set in DATA_SETS:
        with pytest.raises(UserError, match=f"^{re.escape(str(tars / data_set.tar))}: cannot be read as the raw data"):
            write_data_set(data_set, tars, tmp_path / "out", num_shards=1)


def test_a_metric_that_differs_or_is_missing_does_not_hold():
    ours = {"acc1": 0.5, "recall": 0.25, "ours_alone": 1.0}
    compared = compare_metrics(ours, {"acc1": 0.5 + 9e-7, "recall": 0.2500011, "missing": 0.1, "acc5": float("nan")})
    assert {each.metric: each.holds for each in compared} == {"acc1": True, "recall": False, "missing": False}
    (undefined,) = compare_metrics({"acc5": 1.0}, {"acc5": float("nan")})
    assert not undefined.holds


def test_a_table_that_misreads_a_result_is_found():
    result = {"dataset": "wds/x", "model": "m", "pretrained": "p", "task": "t", "language": "en"}
    result["metrics"] = {"acc1": 0.5, "acc5": 1.0}
    row = {**result, "acc1": "0.5", "acc5": "1.0", "model_fullname": "m p"}
    assert find_misread(row, result) == []
    row |= {"acc1": "0.51", "task": "other"}
    del row["acc5"]
    assert find_misread(row, result) == ["acc1", "acc5", "task"]


@pytest.fixture
def stand_in(monkeypatch):
    """Run our commands in this process; CLIP_benchmark's give our scores, with those changed that are prescribed."""
    changes: dict[str, float] = {}

    def time_command(words, threads, **environment):
        flags = dict(itertools.pairwise(words))
        if "eval.cli" in words:
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                assert evaluate(words[words.index("eval.cli") + 1 :]) == 0
            return TimedCommand(3.0, 2.0, printed.getvalue())
        name = flags["--dataset"].removeprefix("wds/")
        (ours,) = Path(flags["--output"]).parents[2].glob(f"ours/*/{flags['--task']}_*{name}.json")
        shared = {
            metric: value + changes.get(metric, 0.0)
            for metric, value in json.loads(ours.read_text())["metrics"].items()
            if "rank" not in metric and metric != "rsum"
        }
        Path(flags["--output"]).write_text(json.dumps({"metrics": shared}))
        return TimedCommand(6.0, 5.0, "")

    def run_command(words):
        if "build" not in words:
            return "clip-benchmark 0\n"
        rows = [json.loads(Path(word).read_text()) for word in words if word.endswith(".json")]
        rows = [{**row, **row["metrics"], "model_fullname": f"{row['model']} {row['pretrained']}"} for row in rows]
        with Path(words[-1]).open("w", newline="") as file:
            writer = csv.DictWriter(file, sorted({key for row in rows for key in row}))
            writer.writeheader()
            writer.writerows(rows)
        return ""

    monkeypatch.setattr(sides, "time_command", time_command)
    monkeypatch.setattr(sides, "run_command", run_command)
    return changes


def test_the_whole_comparison(tars, stand_in, bench, tmp_path):
    model = export_folder(open_clip_model(), tmp_path / "model")
    words = ["clip_benchmark", "--quick", "--data", str(tars), "--model", str(model)]
    equal = bench(*words, "--clip-benchmark-python", "python", "--work", str(tmp_path / "work"))
    assert re.search(r"^clothing +acc1 +[01]\.\d{8} +[01]\.\d{8} +\+0\.0e\+00$", equal, re.MULTILINE)
    assert re.search(r"^shared metrics of all rounds: all \d+ are equal up to 1e-06$", equal, re.MULTILINE)
    assert re.search(r"^flickr8k, 5 images +ours +3\.0 +3\.0 \.\. 3\.0 +0\.50 +2\.0$", equal, re.MULTILINE)
    assert re.search(r"^all +CLIP_benchmark +18\.0 ", equal, re.MULTILINE)
    assert re.search(r"build of our JSON files: 3 results, \d+ metrics, all as we wrote them$", equal, re.MULTILINE)
    stand_in["acc5"] = 2e-6
    differing = bench(*words, "--clip-benchmark-python", "python")
    assert "shared metrics of all rounds: differ: cifar10 acc5, clothing acc5\n" in differing
    ours_alone = bench(*words)
    assert "cifar10 acc1 " in " ".join(ours_alone.split()) and "CLIP_benchmark" not in ours_alone
