"""Trainings of heads on features: resumed, averaged, on two data sets, and scored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bimodal_cl.data import Manifest, open_stream
from bimodal_cl.files.checksums import write_checksums
from bimodal_cl.models import load_model
from bimodal_cl.models.features.heads import FeatureHeads, load_heads
from bimodal_cl.scoring.retrieval import evaluate_retrieval
from tests.test_training.features.conftest import Encoded
from tests.test_training.run_files import assert_equal_runs, assert_equal_tensors, copy_run, read_log, read_losses

RunHeads = Callable[..., Path]
KEEP_ALL = {"every": 1, "keep_last": 99}


def last_scores(run: Path) -> dict[str, float]:
    scores = read_log(run, "evaluate")[-1]
    return {key.removeprefix("retrieval/"): value for key, value in scores.items() if key.startswith("retrieval/")}


def test_a_run_trains_the_heads_alone(run_heads: RunHeads, encoded: Encoded) -> None:
    run = run_heads(train={"num_epochs": 6}, loss={"name": "clip"})
    losses = read_losses(run)
    assert len(losses) == 6 * 4 and sum(losses[-4:]) < sum(losses[:4])
    checkpoint = run / "checkpoints" / "latest"
    names = set(load_file(checkpoint / "model.safetensors"))
    assert all(name.startswith(("visual.head.", "text.proj.", "logit_")) or ".standardize." in name for name in names)
    summary = read_log(run)[-1]
    assert summary["event"] == "summary" and summary["samples_seen"] == 6 * 48
    assert set(summary["data"]["replaced"]) == {"undecodable"}
    heads = load_heads(checkpoint)
    rows = torch.stack([heads.visual.standardize.mean, heads.visual.standardize.std])
    assert rows.isfinite().all() and (rows[1] > 0).all()


@pytest.mark.parametrize(
    "changes", [{"ema": {"decay": 0.8}}, {"loss": {"name": "macl"}}, {"train": {"accumulate_features": 2}}], ids=str
)
def test_a_resume_equals_no_interruption(run_heads: RunHeads, changes: dict) -> None:
    whole = run_heads("whole", checkpoint=KEEP_ALL, **changes)
    for step in (3, 4):  # within an epoch, and between two
        part = copy_run(whole, f"part_{step}")
        run_heads(part.name, "--resume", f"step_{step:08d}", checkpoint=KEEP_ALL, **changes)
        assert_equal_runs(whole, part)
        if "ema" in changes:
            files = [run / "checkpoints" / "latest" / "ema.safetensors" for run in (whole, part)]
            assert_equal_tensors(*files)


def test_several_data_sets_are_mixed(run_heads: RunHeads, encoded: Encoded) -> None:
    sets = [{"folder": str(encoded.data / "train")}, {"folder": str(encoded.data / "more"), "repeat": 2}]
    run = run_heads(data={"train": sets}, checkpoint=KEEP_ALL)
    assert len(read_losses(run)) == 2 * ((49 + 26) // 12)
    part = copy_run(run, "part")
    run_heads("part", "--resume", "step_00000005", data={"train": sets}, checkpoint=KEEP_ALL)
    assert_equal_runs(run, part)


@pytest.mark.parametrize("kind", ["linear", "residual"])
def test_scores_on_features_are_those_of_the_joined_model_on_images(
    kind: str, run_heads: RunHeads, encoded: Encoded
) -> None:
    changes = {"model": {"vision": {"timm_proj": kind}, "text": {"hf_proj_type": kind}}}
    run = run_heads(ema={"decay": 0.5, "evaluate": False}, **changes)
    scores = last_scores(run)
    assert scores["left_out"] == 1
    model = load_model(run)
    assert not isinstance(model, FeatureHeads)
    stream = open_stream(
        Manifest.load(encoded.data / "val"),
        8,
        32,
        train=False,
        num_workers=0,
        eval_transform=model.transform,
        max_bad_fraction=1.0,
    )
    assert evaluate_retrieval(model, stream) == pytest.approx(
        {key: value for key, value in scores.items() if key != "left_out"},
        abs=0.04,  # one caption of 27
    )
    averaged = load_model(run, weights="ema")
    assert not torch.equal(averaged.text.proj.state_dict().popitem()[1], model.text.proj.state_dict().popitem()[1])


def test_a_config_without_the_features_trains_heads_on_the_same_towers(run_heads: RunHeads, encoded: Encoded) -> None:
    run = run_heads(data={"features": None}, train={"num_epochs": 1})
    assert len(read_losses(run)) == 4
    towers = load_file(encoded.features / "towers" / "model.safetensors")
    trained = load_file(run / "checkpoints" / "latest" / "model.safetensors")
    kept = {name for name in towers if not name.startswith(("visual.head.", "text.proj.", "logit_"))}
    assert kept and all(torch.equal(towers[name], trained[name]) for name in kept)


@pytest.mark.parametrize("first", ["features", "pixels"])
def test_checkpoints_of_the_other_kind_are_refused(
    first: str, run_heads: RunHeads, heads_error: Callable[..., str]
) -> None:
    kinds: dict[str, dict] = {"features": {}, "pixels": {"data": {"features": None}}}
    steps = {"num_epochs": None, "num_steps": 1}
    run_heads(train=steps, **kinds.pop(first))
    error = heads_error("run", "--resume", "latest", train=steps, **kinds.popitem()[1])
    assert "data.features was " in error and "this config has " in error


def test_a_resume_on_other_features_is_refused(run_heads: RunHeads, heads_error: Callable[..., str]) -> None:
    steps = {"num_epochs": None, "num_steps": 1}
    state = run_heads(train=steps) / "checkpoints" / "latest" / "state.json"
    values = json.loads(state.read_text())
    values["identity"]["data.features"]["views"] = 4
    state.write_text(json.dumps(values))
    write_checksums(state.parent)
    error = heads_error("run", "--resume", "latest", train=steps)
    assert "data.features was {" in error and "'views': 4" in error


def test_a_resumed_run_knows_where_its_towers_are_now(run_heads: RunHeads, encoded: Encoded, tmp_path: Path) -> None:
    features = shutil.copytree(encoded.features, tmp_path / "before")
    run = run_heads(data={"features": str(features)}, checkpoint=KEEP_ALL)
    moved = features.rename(tmp_path / "after")
    run_heads("run", "--resume", "step_00000006", data={"features": str(moved)}, checkpoint=KEEP_ALL)
    assert load_model(run).encode_text(["a dog"]).shape == (1, 16)
