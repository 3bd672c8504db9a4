"""Whole trainings with locked towers, parts with rates of their own, and every optimizer."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from bimodal_cl.models import build_model
from tests.test_training.conftest import SMALL, WITHOUT_DROPOUT
from tests.test_training.processes.launching import launch
from tests.test_training.run_files import assert_equal_runs, copy_run, read_log, read_losses

KEEP_ALL = {"every": 3, "keep_last": 9}
OPTIM = SMALL["optim"]
# Everything at once: rates by layer and part, a partly locked tower, a cooldown.
PARTS = {
    "image": {"learning_rate": 0.001, "layer_decay": 0.5},
    "text": {"lock": True, "unlocked_groups": 2},
    "heads_learning_rate": 0.004,
    "schedule": "constant_cooldown",
    "cooldown_steps": 4,
}
BATCH_NORMS = {
    "image_size": 32,
    "embed_dim": 16,
    "vision": {"timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "linear"},
    "text": SMALL["model"]["text"],
}
IMAGE_LOCKED = {"image": {"lock": True}}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """The folder of a small model with a timm ResNet, as ``model.pretrained`` takes it."""
    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp("pretrained")
    build_model(**BATCH_NORMS).save(folder)
    return {**dict.fromkeys(SMALL["model"]), "pretrained": str(folder)}


def weights(run):
    return load_file(run / "checkpoints/latest/model.safetensors")


@pytest.mark.parametrize("name", ["adamw", "lamb", "lion", "muon"])
def test_resume_equals_no_interruption(run_training, name):
    loss = {"name": "isogclr", "rho": 1.0, "gamma_warmup": 0.5, "eta_warmup": 0.5}
    run = partial(run_training, loss=loss, optim={**PARTS, "name": name}, checkpoint=KEEP_ALL)
    whole = run("whole")
    part = copy_run(whole, "part")
    for step in (3, 6):
        run("part", "--resume", f"step_{step:08d}")
        assert_equal_runs(whole, part)


@pytest.mark.parametrize("name", ["adamw", "lamb", "lion", "muon"])
def test_every_optimizer_lowers_the_loss(run_training, name):
    rate = {"lamb": 0.02, "lion": 0.0007}.get(name, 0.002)
    run = run_training(optim={"name": name, "learning_rate": rate}, loss={"name": "clip"}, data={"val": None})
    losses = read_losses(run)
    assert len(losses) == 10 and losses[-1] < losses[0] - 0.1


def test_rates_of_parts_are_logged_and_the_base_is_as_before(run_training):
    lines = read_log(run_training(optim=PARTS), "train")
    plain = read_log(run_training("plain", optim={"schedule": "constant"}), "train")
    for number, line in enumerate(lines):
        left = min(1.0, (10 - number) / 4)
        assert line["learning_rate"] == pytest.approx(plain[number]["learning_rate"] * left)
        assert line["learning_rate/image"] == pytest.approx(line["learning_rate"] / 4)  # half, and half by layer
        assert line["learning_rate/heads"] == pytest.approx(line["learning_rate"] * 2)
    assert not any(key.startswith("learning_rate/") for line in plain for key in line)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_locked_trunk_is_saved_as_it_was(run_training, pretrained, accumulate):
    run = run_training(
        model=pretrained, optim=IMAGE_LOCKED, loss={"name": "clip"}, train={"accumulate_features": accumulate}
    )
    before, after = load_file(f"{pretrained['pretrained']}/model.safetensors"), weights(run)
    kept = [key for key in before if key.startswith("visual.trunk.")]
    assert any(key.endswith("running_mean") for key in kept)
    assert all(torch.equal(before[key], after[key]) for key in kept)
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert "visual.head.proj.weight" in changed and any(key.startswith("text.transformer.") for key in changed)
    losses = read_losses(run)
    assert losses[-1] < losses[0]


def test_frozen_statistics_stay_in_a_run_whose_resume_equals_no_interruption(run_training, pretrained):
    run = partial(
        run_training,
        model=pretrained,
        optim={"image": {"freeze_statistics": True}},
        loss={"name": "clip"},
        checkpoint=KEEP_ALL,
        data={"val": None},
    )
    whole = run("whole")
    before, after = load_file(f"{pretrained['pretrained']}/model.safetensors"), weights(whole)
    statistics = [key for key in before if "running_" in key or "num_batches" in key]
    assert statistics and all(torch.equal(before[key], after[key]) for key in statistics)
    assert not any(torch.equal(before[key], after[key]) for key in before if key.endswith("bn1.weight"))
    part = copy_run(whole, "part")
    run("part", "--resume", "step_00000003")
    assert_equal_runs(whole, part)


def test_a_run_with_a_locked_tower_is_the_same_in_micro_batches_and_on_two_processes(
    run_training, write_config, tmp_path, pretrained
):
    """Locked batch norms use their running statistics, so that no batch is too small for them."""
    changes = {"model": pretrained, "optim": IMAGE_LOCKED, "loss": {"name": "clip"}, "data": {"val": None}}
    whole = read_losses(run_training("whole", **changes))
    in_parts = read_losses(run_training("in_parts", train={"accumulate_features": 4}, **changes))
    assert in_parts == pytest.approx(whole, rel=1e-4)
    done = launch(write_config("on_2", **changes), 2)
    assert done.returncode == 0, done.stderr
    assert read_losses(tmp_path / "on_2") == pytest.approx(whole, rel=1e-4)


def test_two_processes_train_a_fully_locked_image_tower(write_config, tmp_path, run_training):
    changes = {"model": WITHOUT_DROPOUT, "optim": IMAGE_LOCKED, "data": {"val": None}}
    one = read_losses(run_training("on_1", **changes))
    done = launch(write_config("on_2", **changes), 2)
    assert done.returncode == 0, done.stderr
    assert read_losses(tmp_path / "on_2") == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize(
    ("optim", "expected"),
    [
        ({"image": {"lock": True}}, "optim.image was 'trained', this config has 'locked'"),
        ({"text": {"layer_decay": 0.9}}, "optim.text was 'trained', this config has 'trained, with rates by layer'"),
        (
            {"heads_learning_rate": 0.1},
            "optim.heads_learning_rate was 'that of the weights', this config has 'its own'",
        ),
        ({"name": "lion"}, "optim.name was 'adamw', this config has 'lion'"),
    ],
)
def test_a_resume_that_trains_something_else_is_refused(run_training, training_error, optim, expected):
    train = {"num_steps": 2, "num_epochs": None}
    run = run_training(train=train)
    assert expected in training_error("run", "--resume", "latest", train=train, optim=optim)
    state = run / "checkpoints/latest/state.json"
    values = json.loads(state.read_text())  # as a version before these keys wrote it
    values["identity"] = {key: value for key, value in values["identity"].items() if not key.startswith("optim.")}
    state.write_text(json.dumps(values))
    state.with_name("SHA256SUMS").unlink()
    assert expected in training_error("run", "--resume", "latest", train=train, optim=optim)
    run_training("run", "--resume", "latest", train={"num_steps": 3, "num_epochs": None})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"image": {"lock": True}, "text": {"lock": True}}, "leave nothing to train: leave one of them out"),
        (
            {"image": {"lock": True, "unlocked_groups": 3}},
            "leaves nothing locked: the tower has 3 groups; use at most 2",
        ),
        ({"schedule": "constant_cooldown"}, "optim.schedule=constant_cooldown needs optim.cooldown_steps"),
        ({"schedule": "constant_cooldown", "cooldown_steps": 9}, "the run has 10 steps; use at most 8"),
        ({"name": "adam"}, "did you mean 'adamw'?"),
        ({"schedule": "const-cooldown"}, "did you mean 'constant_cooldown'?"),
        ({"lock_image": True}, "did you mean 'optim.image.lock'?"),
    ],
)
def test_refused(training_error, tmp_path, changes, expected):
    line = training_error(optim={**OPTIM, **changes})
    assert expected in line and line.startswith("error: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"image": {"unlocked_groups": 2}},
            "optim.image.unlocked_groups=2 has no effect without optim.image.lock=true",
        ),
        ({"image": {"lock": True, "layer_decay": 0.5}}, "optim.image.layer_decay=0.5 has no effect"),
        ({"text": {"lock": True, "unlocked_groups": 1}}, "the text tower starts from random weights"),
        ({"name": "lion", "eps": 1e-8}, "optim.eps=1e-08 has no effect with optim.name=lion"),
        ({"momentum": 0.9}, "optim.momentum=0.9 has no effect with optim.name=adamw"),
        ({"name": "lamb", "weight_decay": 0.0}, "with optim.weight_decay=0 it is Adam"),
        ({"cooldown_steps": 3}, "optim.cooldown_steps=3 has no effect with optim.schedule=cosine"),
    ],
)
def test_warned_of(run_training, capsys, changes, expected):
    run_training(optim={**OPTIM, **changes}, train={"num_steps": 3, "num_epochs": None})
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert any(expected in line for line in lines), lines
