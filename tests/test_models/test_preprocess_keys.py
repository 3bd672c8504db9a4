"""The preprocessing of the config or of the weights: the same in a model, its checkpoint and its export."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

from bimodal_cl.models import build_model, load_model
from eval import cli
from tests.refusals import refused
from tests.test_models.small_models import TEXT, VISION

KEYS = {
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
    "image_interpolation": "bilinear",
    "image_resize_mode": "squash",
}
VALUES = {key.removeprefix("image_"): value for key, value in KEYS.items()}


def stated(model):
    return {key: model.architecture.preprocess[key] for key in VALUES}


def test_keys_reach_pixels_checkpoint_and_export(tmp_path):
    model = build_model(embed_dim=16, vision=VISION, text=TEXT, **KEYS).eval()
    assert stated(model) == VALUES
    image = Image.linear_gradient("L").resize((50, 20)).convert("RGB")
    resized = image.resize((32, 32), Image.Resampling.BILINEAR)
    mean, std = (torch.tensor(KEYS[key])[:, None, None] for key in ("image_mean", "image_std"))
    expected = (torch.tensor(np.array(resized)).permute(2, 0, 1) / 255 - mean) / std
    torch.testing.assert_close(model.preprocess(image), expected)
    # What a training reads, uint8, is normalised in the model; an evaluation gives the same features.
    torch.testing.assert_close(model.encode_image(model.transform(image)[None]), model.encode_image(expected[None]))

    model.save(tmp_path / "saved")
    assert stated(load_model(tmp_path / "saved")) == VALUES
    assert cli.main(["export", str(tmp_path / "saved"), "--to", str(tmp_path / "export")]) == 0
    config = json.loads((tmp_path / "export" / "open_clip_config.json").read_text())["preprocess_cfg"]
    assert {key: config[key] for key in VALUES} == VALUES
    assert stated(load_model(tmp_path / "export")) == VALUES


def test_keys_override_the_preprocessing_of_pretrained_weights(tmp_path):
    build_model(embed_dim=16, vision=VISION, text=TEXT, **KEYS).save(tmp_path)
    assert stated(build_model(pretrained=str(tmp_path))) == VALUES
    other = build_model(pretrained=str(tmp_path), image_mean=[0.1, 0.2, 0.3])
    assert stated(other) == {**VALUES, "mean": [0.1, 0.2, 0.3]}
    torch.testing.assert_close(other.image_mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))


@pytest.mark.parametrize("pretrained", [True, False])
def test_timms_own_weights_bring_their_preprocessing(pretrained, tmp_path):
    """A local folder in timm's form stands for the hub; random weights keep open_clip's preprocessing."""
    timm_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "interpolation": "bilinear", "crop_mode": "squash"}
    source = timm.create_model("resnet10t", pretrained_cfg_overlay=timm_cfg)
    save_for_hf(source, tmp_path, safe_serialization="both")
    vision = {"image_size": 32, "timm_model_name": f"local-dir:{tmp_path}", "timm_model_pretrained": pretrained}
    model = build_model(embed_dim=16, vision=vision, text=TEXT)
    weight = model.visual.trunk.conv1[0].weight
    assert torch.equal(weight, source.conv1[0].weight) == pretrained
    plain = stated(build_model(embed_dim=16, vision=VISION, text=TEXT))
    theirs = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    assert stated(model) == (theirs if pretrained else plain)
    given = build_model(embed_dim=16, vision=vision, text=TEXT, image_std=[1.0, 1.0, 1.0])
    assert stated(given) == {**stated(model), "std": [1.0] * 3}


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"image_mean": [0.5, 0.5]}, r"model.image_mean must be one or three numbers, got \[0.5, 0.5\]"),
        ({"image_std": [0.5, 0.0, 0.5]}, "model.image_std must be above 0"),
        ({"image_interpolation": "bicubik"}, "model.image_interpolation 'bicubik' is unknown; did you mean 'bicubic'"),
        ({"image_resize_mode": "square"}, "model.image_resize_mode 'square' is unknown; did you mean 'squash'"),
    ],
)
def test_mistakes_are_one_line(keys, match):
    with refused(match):
        build_model(embed_dim=16, vision=VISION, text=TEXT, **keys)
