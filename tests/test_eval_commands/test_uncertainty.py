"""Intervals and comparisons in results: present for every score, around it, and the same in every call."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest
import torch

from bimodal_cl.metrics import mean_average_precision, rank_queries
from bimodal_cl.metrics.bootstrap import RESAMPLES, SEED
from bimodal_cl.models import load_model
from bimodal_cl.scoring.retrieval import score_retrieval
from bimodal_cl.scoring.uncertainty import (
    compare,
    resample_classes,
    resample_outcomes,
    resample_retrieval,
    resample_sets,
)
from eval.cli import main
from eval.outcomes import outcomes_path, read_outcomes, write_outcomes
from tests.test_eval_commands.conftest import retrieve, zero_shot


@pytest.fixture
def other_model(run_folder, tmp_path):
    """A model of other weights."""
    folder = tmp_path / "other"
    model = load_model(run_folder)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    model.save(folder)
    return folder


def read_all(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/*.json"))]


def test_every_score_has_an_interval_around_it(run_folder, shards, class_folders, tmp_path, capsys):
    found = retrieve(run_folder, shards, tmp_path / "pairs"), zero_shot(run_folder, class_folders, tmp_path / "classes")
    for result, unit, count in zip(
        found, ("images with all their captions, as queries", "images"), (11, 12), strict=True
    ):
        assert set(result["intervals"]) == set(result["metrics"])
        for name, (low, high) in result["intervals"].items():
            assert low <= result["metrics"][name] <= high, name
        assert any(low < high for low, high in result["intervals"].values())
        method = result["provenance"]["intervals"]
        assert (method["unit"], method["num_units"], method["level"], method["resamples"]) == (unit, count, 0.95, 1000)
        assert "compared" not in result
    low, high = found[1]["intervals"]["acc1"]
    shown = capsys.readouterr().out
    assert f"{100 * found[1]['metrics']['acc1']:.1f} % ± {50 * (high - low):.1f}" in shown
    assert "half the width of the 95 % interval (1,000 bootstrap resamples of 12 images)" in shown


@pytest.mark.parametrize("command", ["retrieval", "zero-shot"])
def test_models_of_one_call_are_compared(command, run_folder, other_model, shards, class_folders, tmp_path, capsys):
    data = {"retrieval": shards, "zero-shot": class_folders}[command]
    older = run_folder / "checkpoints" / "step_00000004"  # the same weights
    models = [run_folder, other_model, older]
    assert main([command, *map(str, models), "--data", str(data), "--to", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    results = {result["provenance"]["checkpoint"]: result for result in read_all(tmp_path / "out")}
    first, same = (
        next(result for place, result in results.items() if place.endswith(end)) for end in ("_00000008", "_00000004")
    )
    second = results[str(other_model)]
    assert [each["with"] for each in first["compared"]] == [str(other_model), str(older)]
    assert first["compared"][0]["checkpoint_sha256"] == second["provenance"]["checkpoint_sha256"]
    forth, back = first["compared"][0]["scores"], second["compared"][0]["scores"]
    assert set(forth) == set(first["metrics"])
    for name, one in forth.items():
        assert one["difference"] == first["metrics"][name] - second["metrics"][name] == -back[name]["difference"]
        assert one["interval"] == pytest.approx([-end for end in reversed(back[name]["interval"])])
        assert one["p_value"] == back[name]["p_value"]
    for one in first["compared"][1]["scores"].values():
        assert one == {"difference": 0.0, "interval": [0.0, 0.0], "p_value": 1.0, "distinguishable": False}
    assert same["metrics"] == first["metrics"]
    (line,) = [
        line
        for line in shown.splitlines()
        if line.startswith(f"{run_folder} - {older}") and ("top-1" in line or "RSUM" in line)
    ]
    assert "not distinguishable" in line and "[+0.0, +0.0]" in line


def test_models_on_other_data_are_not_compared():
    ranks, targets = np.array([1, 2, 1, 1]), np.array([0, 1, 2, 3])
    one = resample_classes(ranks, np.where(ranks == 1, targets, 0), targets, 4)
    other = resample_classes(ranks, np.where(ranks == 1, targets, 0), targets[::-1].copy(), 4)
    assert set(one.samples) == {"acc1", "mean_per_class_recall"}
    scores = {"acc1": 0.75, "mean_per_class_recall": 0.75}
    assert set(compare(scores, scores, one, one)) == set(scores)
    assert compare(scores, scores, one, other) == {}


def test_retrieval_is_resampled_as_the_data_with_repeated_queries_would_score():
    rng = np.random.default_rng(0)
    owners = rng.integers(0, 12, 40)
    owners[owners == 5] = 6  # an image without a caption is no query
    ranked = rank_queries(rng.normal(size=(12, 3)), rng.normal(size=(40, 3)), owners)
    found = resample_retrieval(ranked, owners)
    queried, row = np.unique(owners, return_inverse=True)
    drawn = np.random.default_rng(SEED).integers(0, len(queried), size=(RESAMPLES, len(queried)))
    for at in (0, 1, 500):
        captions = np.concatenate([np.flatnonzero(row == unit) for unit in drawn[at]])
        again = type(ranked)(
            ranked.image_ranks[captions], ranked.text_ranks[drawn[at]], ranked.text_precisions[drawn[at]]
        )
        assert score_retrieval(again) == pytest.approx({name: values[at] for name, values in found.samples.items()})


def test_images_of_several_classes_have_an_interval():
    rng = np.random.default_rng(0)
    shown = (rng.random((60, 5)) < 0.4).astype(np.int64)
    sims = rng.normal(size=(60, 5)) + shown
    (low, high) = resample_sets(sims, shown).intervals()["mean_average_precision"]
    assert 0 < low < mean_average_precision(sims, shown) < high < 1


@pytest.mark.parametrize("command", ["retrieval", "zero-shot"])
def test_kept_outcomes_give_the_same_intervals_again(command, run_folder, shards, class_folders, tmp_path):
    data = {"retrieval": shards, "zero-shot": class_folders}[command]
    typed = [command, str(run_folder), "--data", str(data), "--to", str(tmp_path / "out")]
    assert main(typed) == 0
    (path,) = (tmp_path / "out").glob("*.json")
    result = json.loads(path.read_text())
    assert result["provenance"]["command"] == shlex.join(["bimodal-eval", *typed])
    kept = read_outcomes(path, result)
    again = resample_outcomes(kept)
    intervals = again.intervals()  # calibration needs more than the outcomes hold
    assert intervals == {name: ends for name, ends in result["intervals"].items() if not name.startswith("ece")}
    assert intervals and again.data == kept.data
    assert read_outcomes(path, {**result, "metrics": {"acc1": 0.5}}) is None  # of another result
    outcomes_path(path).write_bytes(b"PK\3\4 cut short")
    assert read_outcomes(path, result) is None
    write_outcomes(path, result, None)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_outcomes_of_other_captions_are_of_other_data():
    ranked, owners = rank_queries(np.eye(3), np.eye(3), np.arange(3)), np.arange(3)
    first, same, other = (resample_retrieval(ranked, owners, texts) for texts in ("abc", ["a", "b", "c"], "abd"))
    assert first.data == same.data != other.data
