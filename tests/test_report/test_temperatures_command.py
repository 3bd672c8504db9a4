"""``bimodal-eval temperatures`` prints and writes what the tables hold, without ids that were never visited."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import load_file

from bimodal_cl.data import Manifest
from bimodal_cl.data.shards.mixture import Mixture
from eval import cli
from tests.refusals import read_mistake


def test_quantiles_and_ends_are_those_of_the_visited_ids(run, capsys):
    assert cli.main(["temperatures", str(run), "--top", "2"]) == 0
    printed = capsys.readouterr().out
    tables = load_file(run / "checkpoints/latest/loss.safetensors")
    tau = tables["text_anchors.tau"][np.isfinite(tables["text_anchors.log_u"])]
    row = next(line for line in printed.splitlines() if line.startswith("texts"))
    assert row.split()[1:3] == ["360", "350"]
    assert float(row.split()[6]) == pytest.approx(np.median(tau), rel=1e-3)
    largest = printed.split("largest temperatures")[1].splitlines()[1].split()
    assert float(largest[0]) == pytest.approx(tau.max(), rel=1e-3)
    assert int(largest[2]) == int(tables["text_anchors.tau"].argmax())
    visited = np.isfinite(tables["image_anchors.log_u"])
    smallest = printed.split("Images with the smallest temperatures")[1].splitlines()[1].split()
    expected = np.where(visited, tables["image_anchors.tau"], np.inf)
    assert float(smallest[0]) == pytest.approx(expected.min(), rel=1e-3)
    assert int(smallest[2]) == int(expected.argmin())
    assert ".tar/" in smallest[3]


def test_a_key_of_another_version_changes_nothing(run, capsys):
    assert cli.main(["temperatures", str(run)]) == 0
    before = capsys.readouterr().out
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["loss"]["a_later_key"] = 3
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert cli.main(["temperatures", str(run)]) == 0
    assert capsys.readouterr().out == before


@pytest.mark.parametrize("name", ["all.csv", "all.json"])
def test_every_text_is_written_with_its_temperature_and_caption(run, name, capsys):
    target = run / name
    assert cli.main(["temperatures", str(run), "--to", str(target)]) == 0
    if target.suffix == ".csv":
        with target.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = json.loads(target.read_text())["texts"]
    assert len(rows) == 360
    tables = load_file(run / "checkpoints/latest/loss.safetensors")
    assert float(rows[5]["tau"]) == pytest.approx(float(tables["text_anchors.tau"][5]), rel=1e-6)
    assert rows[-1]["tau"] in ("", None)  # never visited
    assert "<script>" in rows[14]["caption"]


def test_mistakes_are_one_line(run, capsys):
    for flags, message in (
        (["--to", "x.txt"], "must end in .csv, .json or .parquet"),
        (["--top", "-1"], "--top"),
        (["--to", "no/x.csv"], "no folder 'no'"),
    ):
        assert message in read_mistake(capsys, cli.main, "temperatures", run, *flags)


def test_parquet_holds_a_row_for_every_image_and_text(run, capsys):
    target = run / "all.parquet"
    assert cli.main(["temperatures", str(run), "--to", str(target)]) == 0
    assert "540 images and texts" in capsys.readouterr().out
    rows = pq.read_table(target).to_pylist()
    tables = load_file(run / "checkpoints/latest/loss.safetensors")
    for kind, size in (("image", 180), ("text", 360)):
        own = {row["id"]: row for row in rows if row["kind"] == kind}
        assert sorted(own) == list(range(size))
        for column in ("tau", "log_u"):
            visited = [row[column] for row in own.values() if row["visited"]]
            stored = tables[f"{kind}_anchors.{column}"][[number for number, row in own.items() if row["visited"]]]
            assert np.array_equal(np.float32(visited), stored)
        assert [number for number, row in own.items() if not row["visited"]] == list(range(size)[-size // 36 :])
        assert own[size - 1]["tau"] is None
    texts = {row["id"]: row for row in rows if row["kind"] == "text"}
    assert texts[125]["image_id"] == 62 and texts[125]["key"] == "000062" and texts[125]["shard"] == "00001.tar"
    assert "<script>" in texts[14]["caption"]
    assert pq.read_schema(target).metadata[b"step"] == b"2000"


def test_parquet_without_data_has_ids_and_temperatures(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["temperatures", str(run), "--to", str(run / "all.parquet")]) == 0
    rows = pq.read_table(run / "all.parquet").to_pylist()
    assert len(rows) == 540 and rows[20]["tau"] > 0 and rows[20]["caption"] is None


def test_shards_name_the_data_where_they_moved(run, capsys, tmp_path, monkeypatch):
    moved = shutil.copytree("data/train", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["temperatures", str(run)]) == 0
    assert "No captions" in capsys.readouterr().out
    assert cli.main(["temperatures", str(run), "--shards", str(moved)]) == 0
    printed = capsys.readouterr().out
    assert "pale ground" in printed and "warning" not in printed
    state = run / "checkpoints/latest/state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "identity": {"data.shards": "other"}}))
    assert cli.main(["temperatures", str(run), "--shards", str(moved)]) == 0
    assert "captions may be wrong" in capsys.readouterr().out


def test_several_data_sets_are_given_in_their_order(run, capsys, tmp_path):
    manifest = json.loads(Path("data/train/manifest.json").read_text())
    for name, shards in (("first", manifest["shards"][:2]), ("second", manifest["shards"][2:])):
        folder = shutil.copytree("data/train", tmp_path / name)
        totals = {key: sum(shard[key] for shard in shards) for key in ("num_images", "num_texts")}
        (folder / "manifest.json").write_text(json.dumps({**manifest, "shards": shards, **totals}))
    folders = [str(tmp_path / name) for name in ("first", "second")]
    state = run / "checkpoints/latest/state.json"
    trained_on = Mixture([Manifest.load(Path(folder)) for folder in folders]).digest
    state.write_text(json.dumps({"step": 2000, "identity": {"data.shards": trained_on}}))
    flags = ["temperatures", str(run), "--sample", "0", "--to", str(run / "all.parquet")]
    assert cli.main([*flags, "--shards", folders[0], "--shards", folders[1]]) == 0
    assert "warning" not in capsys.readouterr().out
    last = pq.read_table(run / "all.parquet").to_pylist()[-1]
    assert (last["id"], last["data_set"], last["shard"], last["key"]) == (359, "second", "00002.tar", "000179")
    assert cli.main([*flags, "--shards", folders[1], "--shards", folders[0]]) == 0
    assert "captions may be wrong" in capsys.readouterr().out


def test_shards_that_do_not_fit_are_refused(run, capsys, tmp_path):
    smaller = shutil.copytree("data/train", tmp_path / "smaller")
    manifest = json.loads((smaller / "manifest.json").read_text())
    manifest["shards"].pop()
    manifest |= {"num_images": 120, "num_texts": 240}
    (smaller / "manifest.json").write_text(json.dumps(manifest))
    assert "holds 120 images, the run's tables 180" in read_mistake(
        capsys, cli.main, "temperatures", run, "--shards", smaller
    )
    assert "nowhere" in read_mistake(capsys, cli.main, "temperatures", run, "--shards", tmp_path / "nowhere")
