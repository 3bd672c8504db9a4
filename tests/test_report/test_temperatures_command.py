"""``bimodal-eval temperatures`` prints and writes what the tables hold, without ids that were never visited."""

import csv
import json

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

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
    for flags, message in ((["--to", "x.txt"], "must end in .csv or .json"), (["--top", "-1"], "--top")):
        assert message in read_mistake(capsys, cli.main, "temperatures", run, *flags)
