"""The report is one self-contained page with escaped captions; its sections depend on the run's files."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eval import cli
from eval.report.scores import score_tables
from tests.refusals import read_mistake


def render(run: Path) -> str:
    assert cli.main(["report", str(run)]) == 0
    return (run / "report.html").read_text(encoding="utf-8")


def tables_of(run: Path) -> Path:
    return run / "checkpoints" / "latest" / "loss.safetensors"


def test_the_page_refers_to_nothing_outside_itself(run):
    page = render(run)
    assert re.findall(r"<script\b|<link\b|@import|url\(\s*['\"]?(?!data:|#)", page) == []
    references = re.findall(r"(?:src|href|xlink:href)=[\"']([^\"']*)", page)
    assert references
    assert [each[:60] for each in references if not each.startswith(("data:", "#"))] == []
    assert len(page) < 5_000_000


def test_captions_are_escaped(run):
    tables = load_file(tables_of(run))
    tables["text_anchors.tau"][14] = 0.99  # the caption with markup becomes the largest
    save_file(tables, tables_of(run))
    page = render(run)
    assert "<script>" not in page
    assert "&lt;script&gt;alert(" in page


def test_scores_curves_temperatures_retrievals_and_confusions_are_there(run):
    page = render(run)
    for expected in ("63.4 %", "31.0 %", "Learned temperatures", "Example retrievals", "never visited", "data:image/"):
        assert expected in page, expected
    assert "0:10:20" in page
    first = json.loads((run / "results/zeroshot_classification_concepts.json").read_text())["confusions"][0]
    assert first["class"] in page
    assert page.count("<svg") >= 7


def test_the_captions_shown_are_those_at_the_ends_of_the_table(run):
    tables = load_file(tables_of(run))
    tables["text_anchors.tau"][20], tables["text_anchors.tau"][31] = 0.987654, 0.005001
    save_file(tables, tables_of(run))
    page = render(run)
    assert "0.9877" in page
    assert "0.005001" in page


def test_a_loss_without_tables_shows_its_one_temperature_and_no_histogram(run):
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub(r"loss:\n(  .*\n)+", "loss:\n  name: clip\n  tau_init: 0.07\n", config))
    save_file({"logit_scale": np.array(2.6, dtype=np.float32)}, tables_of(run))
    page = render(run)
    assert "clip" in page
    assert "Captions with the largest" not in page


def test_percentiles_of_tau_are_a_band_where_they_were_logged(run):
    read = "The band is from the 5th to the 95th percentile."
    page = render(run)
    assert read in page and "<h3>Uniformity</h3>" in page
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [{key: value for key, value in line.items() if not key.endswith(("_p05", "_p95"))} for line in lines]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    page = render(run)  # of a run from before
    assert read not in page and "<h3>Temperature</h3>" in page


def test_temperatures_are_followed_over_two_checkpoints_and_not_over_one(run):
    title = "<h3>Temperatures over the training</h3>"
    assert title not in render(run)
    old = shutil.copytree(run / "checkpoints/step_00002000", run / "checkpoints/step_00001000")
    (old / "state.json").write_text(json.dumps({"step": 1000}))
    tables = load_file(old / "loss.safetensors")
    tables["text_anchors.tau"][:] = 0.01234
    save_file(tables, old / "loss.safetensors")
    section = render(run).split(title)[1].split("<h3")[0]
    rows = re.findall(r"<tr><td class=\"number\">([\d,]+)</td>(.*)</tr>", section)
    assert [step for step, _ in rows] == ["1,000", "2,000"]
    assert rows[0][1].count("0.0123<") == 3 and "0.0123<" not in rows[1][1]
    assert 'id="tau-history-' in section


def test_correlations_with_concept_counts_have_intervals(run):
    assert re.search(r"bootstrap interval: images \+0\.\d\d \[\+0\.\d\d, \+\d\.\d\d\], texts \+", render(run))


def test_near_neighbours_are_shown_once_they_were_counted_at_the_same_step(run):
    advice, title = "counts them for this page", "<h3>Temperature by near neighbours</h3>"
    page = render(run)
    assert advice in page and title not in page
    points = {"num_neighbours": [0, 3, 1, 7], "tau": [0.01, 0.03, 0.02, 0.05]}
    measured = {"spearman": 0.61, "low": 0.42, "high": 0.75, "num_points": 4}
    summary = {
        "step": 2000,
        "neighbours": {"image": points, "text": points},
        "correlations": {"neighbours": {"image": measured, "text": measured}},
    }
    (run / "temperature_summary.json").write_text(json.dumps(summary))
    page = render(run)
    assert title in page and advice not in page and "images +0.61 [+0.42, +0.75]" in page
    assert "temperature_summary.json</code>" in page
    (run / "temperature_summary.json").write_text(json.dumps({**summary, "step": 1000}))
    assert title not in render(run)


def test_missing_parts_are_left_out_or_named_in_a_line(run, monkeypatch, tmp_path):
    shutil.rmtree(run / "results")
    monkeypatch.chdir(tmp_path)  # the relative data folder is not found from here
    page = render(run)
    assert "data/train" in page
    assert "Example retrievals</h2>" not in page or "no" in page.split("Example retrievals</h2>")[1][:400].lower()
    assert "data:image/jpeg" not in page and "data:image/png" not in page


@pytest.mark.parametrize("missing", ["config.yaml", "."])
def test_a_missing_or_incomplete_run_is_one_line(run, capsys, missing):
    path = run.parent / "dema" if missing == "." else run
    if missing != ".":
        (run / missing).unlink()
    assert str(path) in read_mistake(capsys, cli.main, "report", path)
    assert not (path / "report.html").exists()


def test_retrieval_scores_have_a_row_for_each_direction():
    metrics = {"image_retrieval_recall@1": 0.5, "text_retrieval_recall@1": 0.25, "image_retrieval_median_rank": 3.0}
    result = {"task": "zeroshot_retrieval", "dataset": "shapes", "metrics": metrics, "file": "x.json"}
    (table,) = score_tables([result])
    assert table.columns == ["R@1", "median rank"]
    assert [(name, cells) for name, _, cells in table.rows] == [
        ("shapes, text → image", ["50.0 %", "3"]),
        ("shapes, image → text", ["25.0 %", ""]),
    ]


def test_scores_show_their_intervals_and_rsum_is_for_both_directions():
    metrics = {"image_retrieval_recall@1": 0.5, "image_retrieval_mean_rank": 3.25, "rsum": 3.124}
    intervals = {"image_retrieval_recall@1": [0.451, 0.55], "image_retrieval_mean_rank": [3, 3.5], "rsum": [3.0, 3.25]}
    result = {"task": "zeroshot_retrieval", "dataset": "shapes", "metrics": metrics, "intervals": intervals}
    (table,) = score_tables([result])
    assert table.columns == ["R@1", "mean rank", "RSUM"]
    assert [(name, cells) for name, _, cells in table.rows] == [
        ("shapes, text → image", ["50.0 % [45.1, 55.0]", "3.25 [3, 3.5]", ""]),
        ("shapes, both directions", ["", "", "312.4 [300.0, 325.0]"]),
    ]
    for broken in (None, [], {"rsum": [1.0]}, {"rsum": "ab"}, {"rsum": ["a", "b"]}):
        (table,) = score_tables([{**result, "metrics": {"rsum": 3.124}, "intervals": broken}])
        assert table.rows[0][2] == ["312.4"]
