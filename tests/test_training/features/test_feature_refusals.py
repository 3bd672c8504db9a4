"""Configs that do not go with ``data.features`` are refused in a line, before a run is begun."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.locked_towers import write_noise
from tests.test_training.features.conftest import Encoded

PRETRAINED = {"image_size": None, "embed_dim": None, "vision": None, "text": None, "pretrained": "runs/other"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim": {"image": {"lock": False}}}, "but optim.image.lock=false: set optim.image.lock=true"),
        ({"optim": {"text": {"lock": False}}}, "but optim.text.lock=false: set optim.text.lock=true"),
        ({"optim": {"image": {"unlocked_groups": 1}}}, "but optim.image.unlocked_groups: leave it out"),
        ({"data": {"zero_shot": "imagenet"}}, "data.zero_shot needs pixels, and data.features has none"),
        ({"model": PRETRAINED}, "model.pretrained: data.features trains new heads"),
        ({"train": {"grad_checkpointing": True}}, "train.grad_checkpointing has no effect with data.features"),
        ({"train": {"patch_dropout": 0.5}}, "train.patch_dropout has no effect with data.features"),
        ({"model": {"text": {"hf_pooler_type": "max_pooler"}}}, "model.text.hf_pooler_type=mean_pooler, this config"),
        ({"model": {"image_size": 64}}, "its towers were built with model.image_size=32, this config has 64"),
        ({"model": {"vision": {"timm_model_name": "test_vit"}}}, "model.vision.timm_model_name=test_resnet"),
        ({"data": {"crop_scale": [0.9, 1.0]}}, "data.crop_scale=[0.9, 1.0], but the features in "),
        ({"data": {"flip": False}}, "data.flip=False, but the features in "),
        ({"data": {"features": "nowhere"}}, "nowhere: no such folder; `bimodal-prep encode SHARDS"),
        ({"model": {"text": {"hf_proj_type": "none"}}}, "model.text.hf_proj_type 'none' is no head that is trained"),
        ({"model": {"text": {"hf_proj_type": "rezidual"}}}, "did you mean 'residual'"),
        ({"model": {"vision": {"timm_proj": ""}}}, "model.vision.timm_proj '' is no head that is trained on features"),
        ({"model": {"text": {"hf_proj_type": None}}}, "model.text.hf_proj_type '' is no head"),
        ({"checkpoint": {"best": "retrieval/rsumm"}}, "retrieval/rsum"),
    ],
    ids=str,
)
def test_settings_that_do_not_go_with_features(
    changes: dict[str, Any], message: str, heads_error: Callable[..., str], tmp_path: Path
) -> None:
    error = heads_error(**changes)
    assert error.startswith("error: ") and message in error, error
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_shards_that_are_not_encoded(heads_error: Callable[..., str], encoded: Encoded, tmp_path: Path) -> None:
    other = write_noise(tmp_path / "other", [12, 3])
    for key in ("train", "val"):
        error = heads_error(data={key: str(other)})
        assert f"data.features={encoded.features}: has no features of {other} as it is now, only more " in error
        assert f"`bimodal-prep encode {other} --model CONFIG --to {encoded.features}` adds them" in error


@pytest.mark.parametrize("split", ["train", "val"])
def test_features_of_towers_that_were_replaced(
    split: str, heads_error: Callable[..., str], encoded: Encoded, tmp_path: Path
) -> None:
    features = shutil.copytree(encoded.features, tmp_path / "features")
    path = features / split / "features.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "towers_sha256": "0" * 64}))
    error = heads_error(data={"features": str(features)})
    assert f"{features}/{split} was encoded by other towers than those in it now: encode it again" in error


def test_crops_without_effect_are_warned_of(
    run_heads: Callable[..., Path], encoded: Encoded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = shutil.copytree(encoded.features, tmp_path / "features")
    path, table = features / "train" / "features.json", features / "train" / "images.npy"
    path.write_text(json.dumps({**json.loads(path.read_text()), "views": 0}))
    np.save(table, np.load(table)[:1])
    run_heads(data={"features": str(features), "crop_scale": [0.25, 1.0]}, train={"num_epochs": 1})
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert f"data.crop_scale has no effect: the features in {features} hold no augmented views" in warning
