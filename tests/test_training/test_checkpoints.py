"""Checkpoints are complete or absent, the newest and the best are kept, and a run's files can be loaded."""

import copy
import json
import math
import shutil

import pytest
import torch
import yaml

from bimodal_cl import train
from bimodal_cl.checkpoint import load_optimizer_state, optimizer_state
from bimodal_cl.config.yaml_files import load_config
from bimodal_cl.models import load_model
from bimodal_cl.optim import build_optimizer, compute_learning_rate, compute_learning_rates
from tests.test_training.run_files import read_log

SCORE = "retrieval/image_retrieval_recall@5"
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def folders(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_the_newest_and_the_best_are_kept(run_training):
    run = run_training(checkpoint={"every": 1, "keep_last": 2, "best": SCORE}, train={"evaluate_every": 2})
    scores = {line["step"]: line[SCORE] for line in read_log(run, "evaluate")}
    best = min(step for step, score in scores.items() if score == max(scores.values()))
    kept = {"step_00000009", "step_00000010", f"step_{best:08d}", "best", "latest"}
    assert folders(run) == sorted(kept)
    assert (run / "checkpoints/latest").readlink().name == "step_00000010"
    assert (run / "checkpoints/best").readlink().name == f"step_{best:08d}"


def test_a_run_holds_its_config_its_metrics_and_a_loadable_model(run_training, write_config):
    run = run_training()
    assert load_config(run / "config.yaml") == load_config(write_config())
    lines = read_log(run)
    assert [line["step"] for line in lines if line["event"] == "train"] == list(range(1, 11))
    assert all(math.isfinite(line["loss"]) and line["samples_per_second"] > 0 for line in lines[:5])
    assert lines[-1]["event"] == "summary" and lines[-1]["samples_seen"] == 720
    encoder = load_model(str(run))
    features = encoder.encode_text(["a red circle", "a blue star"])
    assert torch.allclose(features.norm(dim=1), torch.ones(2))


def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_one(training_error, tmp_path, monkeypatch):
    real, calls = torch.save, []

    def full_disk(*arguments, **keywords):
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("[enforce fail] No space left on device")
        return real(*arguments, **keywords)

    monkeypatch.setattr(torch, "save", full_disk)
    line = training_error(status=1, checkpoint={"every": 3})
    assert "step_00000006 could not be written" in line and "--resume latest" in line
    assert folders(tmp_path / "run") == ["latest", "step_00000003"]


def test_a_damaged_checkpoint_is_named(run_training, training_error):
    train = {"num_epochs": 1}
    tables = run_training(train=train) / "checkpoints/latest/loss.safetensors"
    tables.write_bytes(tables.read_bytes()[:100])
    assert "loss.safetensors is damaged" in training_error("run", "--resume", "latest", train=train)
    tables.with_name("SHA256SUMS").unlink()  # as in checkpoints of earlier versions
    assert "loss.safetensors: cannot be read" in training_error("run", "--resume", "latest", train=train)
    assert "no checkpoint 'step_00000099'" in training_error("run", "--resume", "step_00000099", train=train)


def test_an_unknown_best_score_is_named(training_error):
    assert "no score 'retrieval/recall'" in training_error(checkpoint={"best": "retrieval/recall"})


def test_features_that_are_not_finite_stop_the_step(training_error):
    optim = {"learning_rate": 1e30, "warmup_steps": 0, "max_grad_norm": None}
    line = training_error(status=1, checkpoint={"every": 1}, optim=optim)
    assert "features are not finite on rank 0" in line and line.startswith("error: step ")


def test_a_missing_a_truncated_shard_and_a_manifest_that_does_not_fit_are_named(training_error, shapes, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shapes / "train", copy)
    data = {"train": str(copy)}
    shard = copy / "00001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-5_000])
    truncated = training_error(data=data)
    assert "00001.tar" in truncated and str(len(whole)) in truncated.replace(",", "")
    shard.unlink()
    assert "00001.tar" in training_error(data=data)
    shard.write_bytes(whole)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["num_images"] += 1
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "num_images" in training_error(data=data)


def test_learning_rate_is_a_function_of_the_step():
    schedule = {"num_steps": 110, "learning_rate": 1.0, "min_learning_rate": 0.1, "warmup_steps": 10}
    rates = [compute_learning_rate(step, **schedule) for step in range(110)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0 and rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates[109] == pytest.approx(0.1, abs=1e-3)
    assert compute_learning_rate(80, schedule="constant", **schedule) == 1.0


def test_norms_biases_and_temperatures_are_not_decayed():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    model.add_module("frozen", torch.nn.Linear(2, 2).requires_grad_(False))
    temperature = torch.nn.Parameter(torch.tensor(1.0))
    optimizer = build_optimizer(model, [temperature], learning_rate=1e-3, weight_decay=0.3)
    decayed, free = optimizer.param_groups
    assert [group["name"] for group in optimizer.param_groups] == ["decayed", "not_decayed"]
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3)] and decayed["weight_decay"] == 0.3
    assert [tuple(p.shape) for p in free["params"]] == [(4,), (4,), (4,), ()] and free["weight_decay"] == 0.0


def test_an_optimizer_saved_without_group_names_loads():
    """Names of groups are not part of a checkpoint; those of the earliest version have none."""

    def build():
        temperature = torch.nn.Parameter(torch.tensor(1.0))
        rates = {"learning_rate": 1e-3, "temperature_learning_rate": 1e-2}
        return build_optimizer(torch.nn.Linear(3, 4), [temperature], weight_decay=0.3, **rates)

    optimizer, fresh = build(), build()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    saved = optimizer_state(optimizer)
    assert all("name" not in group for group in saved["param_groups"])
    load_optimizer_state(fresh, saved)
    assert [group["name"] for group in fresh.param_groups] == ["decayed", "not_decayed", "temperature"]
    assert fresh.state_dict()["state"][2]["exp_avg"] == optimizer.state_dict()["state"][2]["exp_avg"] != 0


def test_moments_take_the_layout_of_their_parameter():
    """Fused AdamW pairs numbers by their place in memory, so moments saved in another layout would be mixed up."""
    kernels = torch.randn(4, 3, 2, 2)
    there, here = (torch.nn.Parameter(kernels.to(memory_format=layout)) for layout in LAYOUTS)
    optimizers = [torch.optim.AdamW([parameter], lr=0.1, fused=True) for parameter in (there, here)]
    there.grad = torch.randn(4, 3, 2, 2)
    optimizers[0].step()
    load_optimizer_state(optimizers[1], copy.deepcopy(optimizer_state(optimizers[0])))
    with torch.no_grad():
        here.copy_(there)
    there.grad, here.grad = (torch.randn(4, 3, 2, 2).to(memory_format=layout) for layout in LAYOUTS)
    here.grad.copy_(there.grad)
    for optimizer in optimizers:
        optimizer.step()
    torch.testing.assert_close(here, there)


def test_learning_rates_by_group():
    own = compute_learning_rates(0, 10, learning_rate=1.0, temperature_learning_rate=0.25, warmup_steps=2)
    assert own == {"decayed": 0.5, "not_decayed": 0.5, "temperature": 0.25}
    assert compute_learning_rates(0, 10, learning_rate=1.0, warmup_steps=2) == {"decayed": 0.5, "not_decayed": 0.5}


def test_the_small_config_is_yaml_that_a_user_could_write(write_config):
    assert yaml.safe_load(write_config().read_text())["loss"]["name"] == "isogclr"


def test_an_output_folder_that_cannot_be_made_is_one_line(write_config, tmp_path, capsys, monkeypatch):
    def refuse(self, *arguments, **keywords):
        raise OSError(30, "Read-only file system", str(self))

    config = write_config()
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    assert train.main(["--config", str(config)]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line == f"error: output: {tmp_path}/run cannot be written: Read-only file system"
