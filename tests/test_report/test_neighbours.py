"""Temperatures are set beside the number of near neighbours in the run's own feature space, and followed over steps."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file, save_file

from bimodal_cl.models import build_model, load_model
from eval import cli
from eval.temperatures.correlation import correlate
from eval.temperatures.neighbours import count_neighbours
from tests.refusals import read_mistake


@pytest.fixture
def run_with_model(run):
    """The finished run, whose checkpoint also holds a model with random weights."""
    torch.manual_seed(3)
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    build_model(embed_dim=16, vision=vision, text=text).save(run / "checkpoints" / "step_00002000")
    return run


def unit(rng, rows, width=8):
    features = rng.standard_normal((rows, width)).astype(np.float32)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def test_neighbours_are_counted_in_blocks_as_in_the_whole_matrix():
    features = unit(np.random.default_rng(0), 1100)
    features[700] = features[3]  # a duplicate in another block
    ids = 10 + 2 * np.arange(1100)
    found = count_neighbours(ids, features, np.linspace(0.01, 0.1, 1100))
    cosines = features.astype(np.float64) @ features.T.astype(np.float64)
    assert found.threshold == pytest.approx(np.quantile(cosines[np.triu_indices(1100, 1)], 0.99), abs=1e-5)
    np.fill_diagonal(cosines, -1)
    away = np.abs(cosines - found.threshold).min(axis=1) > 2e-6  # rounding decides the others
    assert away.mean() > 0.9
    assert np.array_equal(found.count[away], (cosines >= found.threshold).sum(axis=1)[away])
    assert found.count.mean() == pytest.approx(0.01 * 1099, rel=0.01)
    assert found.nearest[3] == ids[700] and found.nearest[700] == ids[3]
    assert found.duplicates[3] == (cosines[3] > 0.98).sum() >= 1


def test_equal_items_are_neighbours_when_most_are_equal():
    features = np.repeat(unit(np.random.default_rng(1), 2), [30, 10], axis=0)
    found = count_neighbours(np.arange(40), features, np.repeat([0.05, 0.01], [30, 10]))
    assert found.count.tolist() == found.duplicates.tolist() == [29] * 30 + [9] * 10
    assert found.correlation.value == pytest.approx(1)


def test_a_correlation_has_an_interval():
    rng = np.random.default_rng(2)
    first = rng.standard_normal(400)
    same = correlate(first, np.exp(first))
    assert (same.value, same.low, same.high) == pytest.approx((1, 1, 1))
    related = correlate(first, first + rng.standard_normal(400))
    assert related.low < 0.69 < related.high  # 6 / pi arcsin(r / 2) at r = sqrt(1/2)
    assert 0.05 < related.high - related.low < 0.2
    assert correlate(first, np.ones(400)).as_json() == {"spearman": None, "low": None, "high": None, "num_points": 400}
    assert str(correlate(first, np.ones(400))) == "not defined"


def test_intervals_hold_the_true_value_about_as_often_as_they_say():
    rng = np.random.default_rng(3)
    pairs = [(one := rng.standard_normal(80), one + rng.standard_normal(80)) for _ in range(100)]
    held = sum(found.low <= 0.69 <= found.high for found in (correlate(*pair, resamples=200) for pair in pairs))
    assert 85 <= held <= 100


def test_a_sample_is_encoded_by_the_run_and_its_neighbours_are_written(run_with_model, capsys):
    flags = ["--sample", "60", "--device", "cpu", "--top", "0"]
    outputs = []
    for name in ("one.parquet", "two.parquet", "all.json"):
        assert cli.main(["temperatures", str(run_with_model), *flags, "--to", str(run_with_model / name)]) == 0
        outputs.append(capsys.readouterr().out)
    assert "60 sampled" in outputs[0] and "interval" in outputs[0]
    rows = pq.read_table(run_with_model / "one.parquet").to_pylist()
    assert rows == pq.read_table(run_with_model / "two.parquet").to_pylist()
    sampled = {
        kind: [r for r in rows if r["kind"] == kind and r["num_neighbours"] is not None] for kind in ("image", "text")
    }
    assert [len(each) for each in sampled.values()] == [60, 60]
    assert all(row["visited"] for each in sampled.values() for row in each)
    assert {row["id"] for row in sampled["image"]} == {row["image_id"] for row in sampled["text"]}

    model, texts = load_model(run_with_model), sampled["text"]
    with torch.inference_mode():
        features = model.encode_text([row["caption"] for row in texts]).numpy()
    cosines = features @ features.T
    np.fill_diagonal(cosines, -1)
    assert np.allclose([row["nearest_cosine"] for row in texts], cosines.max(axis=1), atol=1e-5)
    assert np.array_equal([row["num_near_duplicates"] for row in texts], (cosines > 0.98).sum(axis=1))

    content = json.loads((run_with_model / "all.json").read_text())
    found = content["correlations"]["neighbours"]["text"]
    again = correlate(np.array([r["num_neighbours"] for r in texts]), np.array([r["tau"] for r in texts]))
    assert found["spearman"] == pytest.approx(again.value) and found["low"] == pytest.approx(again.low)
    concepts = content["correlations"]["concept_counts"]["image"]
    assert 0 < concepts["low"] < concepts["spearman"] < concepts["high"] <= 1  # as the tables were drawn


def test_without_a_model_or_a_sample_the_rest_is_shown(run, capsys):
    assert cli.main(["temperatures", str(run)]) == 0
    assert "No neighbours were counted: " in capsys.readouterr().out
    assert cli.main(["temperatures", str(run), "--sample", "0"]) == 0
    assert "neighbours" not in capsys.readouterr().out
    assert "at least 2" in read_mistake(capsys, cli.main, "temperatures", run, "--sample", "1")


def test_percentiles_are_followed_over_the_kept_checkpoints(run, capsys):
    old = shutil.copytree(run / "checkpoints/step_00002000", run / "checkpoints/step_00001000")
    (old / "state.json").write_text(json.dumps({"step": 1000}))
    tables = load_file(old / "loss.safetensors")
    halved = {name: table / 2 if name.endswith(".tau") else table for name, table in tables.items()}
    save_file(halved, old / "loss.safetensors")
    damaged = shutil.copytree(old, run / "checkpoints/step_00000500")
    (damaged / "loss.safetensors").write_bytes(b"cut short")
    assert cli.main(["temperatures", str(run), "--to", str(run / "all.json")]) == 0
    printed = capsys.readouterr().out
    first, second = json.loads((run / "all.json").read_text())["checkpoints"]
    visited = np.isfinite(tables["text_anchors.log_u"])
    assert (first["step"], second["step"]) == (1000, 2000)
    assert second["tau_text_p50"] == pytest.approx(float(np.median(tables["text_anchors.tau"][visited])))
    assert first["tau_text_p95"] == pytest.approx(second["tau_text_p95"] / 2)
    rows = printed.split("by checkpoint\n")[1].splitlines()
    assert [line.split()[0] for line in rows[1:3]] == ["1,000", "2,000"]
    logged = printed.split("from the log\n")[1].splitlines()[1:9]
    assert logged[0].split()[0] == "10" and logged[-1].split()[:3] == ["2,000", "0.017", "–"]  # no median was logged
