"""A whole study of tiny runs: it trains, chooses, scores, goes on where it was, and writes its tables."""

from __future__ import annotations

import csv
import json

from eval.cli import main
from eval.study.records import read_records

DRAWN = ("image_retrieval_recall-1", "text_retrieval_recall-1", "rsum")


def test_a_study_runs_once_and_a_second_call_only_writes_again(write_study, project, capsys):
    folder = project / "studies" / "tiny"
    diverging = {"loss": {"name": "clip"}, "grid": {"optim.learning_rate": [1.0e30, 1.0e-3]}}
    axes = {"train.global_batch_size": [8]}
    study = str(
        write_study(
            axes=axes,
            methods={"clip": diverging, "sogclr": {"loss": {"name": "sogclr", "tau": 0.07}}},
            overrides={"optim.max_grad_norm": None, "optim.name": "adamw", "optim.weight_decay": 1.0},
        )
    )
    assert main(["study", study, "--jobs", "2"]) == 0
    shown = capsys.readouterr()
    records = read_records(folder / "runs.jsonl")
    assert len(records) == 2 + 2 + 2  # sogclr has one point, which needs no choice
    by_stage = {(each["stage"], each["method"], each["seed"], str(each["point"])): each for each in records}
    assert len(by_stage) == len(records)
    failed = [each for each in records if "failed" in each]
    assert [each["point"]["optim.learning_rate"] for each in failed] == [1.0e30]
    assert "finite" in failed[0]["failed"]
    assert f"FAILED: {failed[0]['failed']}" in shown.err
    final = next(each for each in records if each["stage"] == "final")
    assert {"rsum", "image_retrieval_recall@1"} <= final["test"].keys()
    assert {"loss", "tau_image", "tau_text"} <= final["log"].keys()
    run = folder / final["folder"]
    assert json.loads((run / final["result"]).read_text())["metrics"] == final["test"]
    assert len(list((run / "checkpoints").glob("step_*"))) == 1
    tuned = next(each for each in records if each["stage"] == "tune" and "val" in each)
    assert not (folder / tuned["folder"] / "checkpoints").exists()
    assert "step 3/3" in (run / "output.log").read_text()

    table = list(csv.DictReader((folder / "table.csv").open()))
    rsum = {each["method"]: each for each in table if each["metric"] == "rsum"}
    values = [each["test"]["rsum"] for each in records if each["stage"] == "final" and each["method"] == "clip"]
    assert float(rsum["clip"]["mean"]) == sum(values) / 2
    assert rsum["clip"]["seeds"] == "1 2"
    assert float(rsum["clip"]["with_data_low"]) < float(rsum["clip"]["mean"])
    (difference,) = (each for each in csv.DictReader((folder / "differences.csv").open()) if each["metric"] == "rsum")
    assert float(difference["data_error"]) > 0
    assert "learning_rate 1e+30 failed: " in (folder / "table.md").read_text()

    plots = {each.name for each in (folder / "plots").glob("*.png")}
    assert plots == {"grid-8.png", *(f"scores-8-{each}.png" for each in DRAWN)}
    page = (folder / "study.html").read_text()
    assert "learning_rate 1e+30 failed" in page
    assert page.count("<svg") == len(plots)

    before = (folder / "runs.jsonl").read_bytes()
    assert main(["study", study]) == 0
    assert "6 runs are done, 0 are to do" in capsys.readouterr().err
    assert (folder / "runs.jsonl").read_bytes() == before
    whole = (folder / "table.csv").read_bytes()
    assert main(["study", study, "--only", "sogclr"]) == 0
    assert "2 runs are done, 0 are to do" in capsys.readouterr().err
    assert (folder / "table.csv").read_bytes() == whole
    runs = [str(folder / each["folder"]) for each in records if each["stage"] == "final"]
    assert main(["report", *runs, "--to", str(project / "report.html")]) == 0
