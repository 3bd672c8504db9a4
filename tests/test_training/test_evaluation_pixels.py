"""Scores during training, ``bimodal-eval`` and ``preprocess`` see the same pixels with every preprocessing."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
import torch
from PIL import Image

from bimodal_cl.build import build_evaluation
from bimodal_cl.config.yaml_files import load_config
from bimodal_cl.data import Manifest
from bimodal_cl.data.pairs import read_pairs
from bimodal_cl.models import build_model, load_model
from data_prep import cli as prep
from eval import cli as evaluation
from eval.encode import open_model
from eval.features.encoded import encode_shards
from tests.test_training.conftest import SMALL
from tests.test_training.run_files import read_log

PREPROCESS = {
    "clip": {},
    "squash": {"resize_mode": "squash"},
    "longest": {"resize_mode": "longest", "fill_color": 90, "interpolation": "bilinear"},
    "siglip": {"resize_mode": "squash", "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3},
    "larger": {"resize_size": 40, "interpolation": "lanczos", "convention": "transformers", "std": [1 / 255] * 3},
    "as it is": {"resize_mode": "none", "mean": [0.0] * 3, "std": [1.0] * 3},
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Shards of 24 images of 120 x 31 pixels: each crop shows different noise."""
    folder = tmp_path_factory.mktemp("wide")
    rng = np.random.default_rng(0)
    for i in range(24):
        image = Image.fromarray(rng.integers(0, 256, (31, 120, 3), dtype=np.uint8))
        image.save(folder / f"{i:02d}.png")
        (folder / f"{i:02d}.txt").write_text(f"noise number {i}\nanother {i * 7}\n")
    assert prep.main(["write", "folder", "--images", str(folder), "--to", str(folder / "shards")]) == 0
    return folder / "shards"


@pytest.fixture
def save_model(tmp_path):
    """Save a small random model with some preprocessing, and return its folder."""

    def save(preprocess):
        torch.manual_seed(1)
        model = build_model(**SMALL["model"]).eval()
        model.architecture = model.architecture.with_preprocess(preprocess)
        model.save(tmp_path / "model")
        return tmp_path / "model"

    return save


@pytest.mark.parametrize("preprocess", PREPROCESS.values(), ids=PREPROCESS)
def test_training_evaluation_and_preprocess_give_the_same_pixels(preprocess, save_model, wide, write_config):
    folder = save_model(preprocess)
    model = load_model(folder)
    expected = torch.stack([model.preprocess(pair.image) for pair in read_pairs(wide, range(24)).values()])
    config = load_config(write_config(data={"val": str(wide)}))
    batches = list(build_evaluation(config, model.transform)._open_pairs())
    pixels = torch.cat([batch.images for batch in batches])
    assert pixels.dtype == torch.uint8
    assert torch.equal(model.encode_image(pixels), model.encode_image(expected))

    arguments = argparse.Namespace(batch_size=24, num_workers=0, precision="float32", cache=None)
    pairs, _ = encode_shards(open_model(str(folder), torch.device("cpu")), Manifest.load(wide), arguments)
    with torch.no_grad():
        assert torch.equal(pairs.image_features, model.encode_image(expected))


@pytest.mark.parametrize("name", ["squash", "larger"])
def test_training_reports_what_bimodal_eval_reports(name, save_model, wide, run_training, tmp_path):
    folder = save_model(PREPROCESS[name])
    run = run_training(
        data={"train": str(wide), "val": str(wide)},
        model={"pretrained": str(folder)},
        loss={"name": "clip"},
        train={"num_epochs": None, "num_steps": 1, "global_batch_size": 12},
    )
    (during,) = read_log(run, "evaluate")
    assert evaluation.main(["retrieval", str(run), "--data", str(wide), "--to", str(tmp_path / "to")]) == 0
    (result,) = (tmp_path / "to").glob("*.json")
    after = json.loads(result.read_text())["metrics"]
    assert {f"retrieval/{key}": value for key, value in after.items()}.items() <= during.items()
    assert load_model(run).transform == load_model(folder).transform
