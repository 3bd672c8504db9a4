"""``bimodal-eval retrieval --features``: runs of heads scored on encoded features, without their towers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bimodal_cl import train
from data_prep import cli
from eval.cli import main
from tests.locked_towers import captions_of, write_locked_config, write_noise
from tests.refusals import read_mistake
from tests.test_eval_commands.conftest import retrieve
from tests.test_training.run_files import read_log


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with ``data/{train,val}``, their ``features``, and a ``run`` on them with averaged weights."""
    folder = tmp_path_factory.mktemp("trained")
    write_noise(folder / "data" / "train", [24])
    write_noise(folder / "data" / "val", [8, 7], first=50, broken=[2])
    own = {"data": {"val": str(folder / "data" / "val"), "features": str(folder / "features")}, "ema": {"decay": 0.5}}
    config = str(write_locked_config(folder / "run.yaml", folder / "data" / "train", own))
    where = ["--to", str(folder / "features"), "--num-workers", "0", "--device", "cpu"]
    assert cli.main(["encode", str(folder / "data"), "--model", config, *where]) == 0
    assert train.main(["--config", config, "--data.crop_scale", "[0.9, 1.0]"]) == 0  # of no effect without views
    return folder


def score(trained, to, *flags):
    return retrieve(trained / "run", trained / "data" / "val", to, "--split", "val", "--device", "cpu", *flags)


def test_the_scores_are_those_of_the_training_and_of_the_images(trained, tmp_path):
    features = ("--features", trained / "features", "--examples", 4)
    found = score(trained, tmp_path / "found", *features)
    averaged = score(trained, tmp_path / "averaged", *features, "--weights", "ema")
    logged = read_log(trained / "run", "evaluate")[-1]
    assert logged["retrieval/left_out"] == 1
    for result, prefix in ((found, "retrieval/"), (averaged, "ema/retrieval/")):
        scores = {key.removeprefix(prefix): value for key, value in logged.items() if key.startswith(prefix)}
        assert scores.pop("left_out") == 1
        assert {name: result["metrics"][name] for name in scores} == scores
    assert found["metrics"] != averaged["metrics"]

    expected = score(trained, tmp_path / "expected", "--batch-size", 4)
    for name in scores:
        close = pytest.approx(expected["metrics"][name], abs=1 if "rank" in name else 0.08)
        assert found["metrics"][name] == close, name
    for key in ("counts", "checkpoint_sha256", "skipped", "data"):
        assert found["provenance"][key] == expected["provenance"][key], key
    towers = json.loads((trained / "features" / "towers" / "towers.json").read_text())["sha256"]
    encoded = {"folder": str(trained / "features" / "val"), "towers_sha256": towers}
    assert found["provenance"]["encoded_features"] == encoded and "encoded_features" not in expected["provenance"]
    assert found["examples"] and found["caption_examples"]
    for example in found["examples"]:  # ids are those of the shards, of which one image is left out
        assert example["caption"] in captions_of(50 + example["image_id"])
    for example in found["caption_examples"]:
        assert example["captions"] == captions_of(50 + example["image_id"])


def test_every_checkpoint_of_a_run_is_scored_without_the_towers(trained, tmp_path):
    moved = shutil.copytree(trained, tmp_path / "moved")
    heads = moved / "run" / "checkpoints" / "latest" / "heads.json"
    heads.write_text(json.dumps({**json.loads(heads.read_text()), "folder": "nowhere"}))
    where = ["--data", moved / "data" / "val", "--split", "val", "--device", "cpu", "--to", tmp_path / "out"]
    assert main(list(map(str, ["retrieval", moved / "run", *where, "--features", moved / "features"]))) == 0


def test_models_that_are_no_runs_on_features_are_refused(trained, run_folder, tmp_path, capsys):
    where = ("--data", trained / "data" / "val", "--features", trained / "features", "--to", tmp_path / "out")
    error = read_mistake(capsys, main, "retrieval", run_folder, *where)
    assert error.endswith("--features scores runs of data.features alone; leave --features out")
    error = read_mistake(capsys, main, "retrieval", trained / "run", *where, "--cache", tmp_path / "cache")
    assert "--cache has no effect with --features" in error
    assert not (tmp_path / "out").exists()


def test_features_of_other_data_or_towers_are_refused(trained, shards, tmp_path, capsys):
    features = shutil.copytree(trained / "features", tmp_path / "features")
    run, to = trained / "run", ("--to", tmp_path / "out")
    error = read_mistake(capsys, main, "retrieval", run, "--data", shards, "--features", features, *to)
    assert f"--features={features}: has no features of {shards} as it is now" in error
    path = Path(features / "val" / "features.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "towers_sha256": "0" * 64}))
    where = ("--data", trained / "data" / "val", "--features", features, *to)
    error = read_mistake(capsys, main, "retrieval", run, *where)
    assert f"--features {features}: was encoded by other towers than those of {run}" in error
    assert not list((tmp_path / "out").glob("*.json"))
