"""A logged step describes the global batch: percentiles of tau, uniformity, the gradient's norm, time and memory."""

import numpy as np
import psutil
import pytest
import torch
from torch.nn.functional import normalize

from bimodal_cl.losses import LOSSES, build_loss
from bimodal_cl.losses.module.contrastive import BatchValues
from bimodal_cl.training import batch_statistics
from bimodal_cl.training.batch_statistics import compute_uniformity, describe_batch
from tests.test_training.conftest import WITHOUT_DROPOUT
from tests.test_training.processes.launching import launch
from tests.test_training.run_files import read_log

STEPS = {"num_epochs": None, "num_steps": 8, "log_every": 2}
NAMES = [f"{name}_{of}" for name in ("tau_image", "tau_text") for of in ("p05", "p50", "p95")]
NAMES += ["uniformity_image", "uniformity_text"]


def features_of(rows, dim, seed=0):
    return normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize("rows", [2, 3, 40])
def test_uniformity_is_the_papers(rows):
    features = normalize(features_of(rows, 8).double(), dim=1)
    pairs = [(features[i] - features[j]).norm() for i in range(rows) for j in range(rows) if i != j]
    expected = np.log(np.mean([np.exp(-2 * float(distance) ** 2) for distance in pairs]))
    assert float(compute_uniformity(features)) == pytest.approx(expected, rel=1e-12)
    assert float(compute_uniformity(features.float())) == pytest.approx(expected, rel=1e-5)


def test_uniformity_is_0_where_all_are_one_point_and_near_minus_4_where_they_spread():
    assert float(compute_uniformity(features_of(1, 16).expand(20, 16))) == pytest.approx(0, abs=1e-6)
    assert float(compute_uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))) == pytest.approx(-8)  # 2 * 2**2
    assert float(compute_uniformity(features_of(500, 2000))) == pytest.approx(-4, abs=0.02)


def test_of_a_large_batch_the_first_rows_are_described(monkeypatch):
    monkeypatch.setattr(batch_statistics, "MAX_ROWS", 10)
    tau = torch.linspace(0.01, 0.4, 50)[:, None]
    images, texts = features_of(50, 8, 1), features_of(50, 8, 2)
    values = describe_batch(BatchValues(tau, tau / 2, images, texts))
    assert list(values) == NAMES
    assert float(values["uniformity_image"]) == float(compute_uniformity(images[:10]))
    assert float(values["uniformity_text"]) == float(compute_uniformity(texts[:10]))
    for percent in (5, 50, 95):
        expected = np.percentile(tau.numpy(), percent)  # over all 50
        assert float(values[f"tau_image_p{percent:02d}"]) == pytest.approx(expected, rel=1e-5)
        assert float(values[f"tau_text_p{percent:02d}"]) == pytest.approx(expected / 2, rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*rho", "ignore:.*set_progress")
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_gives_the_temperatures_and_features_of_its_batch(name):
    images, texts = features_of(12, 8, 1).requires_grad_(), features_of(12, 8, 2).requires_grad_()
    ids = torch.arange(12)
    out = build_loss(name, num_images=12, num_texts=12)(images, texts, ids, ids)
    assert out.batch.tau_image.shape == out.batch.tau_text.shape == (12, 1)
    assert float(out.batch.tau_image.mean()) == pytest.approx(float(out.metrics["tau_image"]), rel=1e-6)
    assert torch.equal(out.batch.image_features, images) and torch.equal(out.batch.text_features, texts)
    assert not any(tensor.requires_grad for tensor in vars(out.batch).values())
    assert list(describe_batch(out.batch)) == NAMES


def test_a_line_has_every_value(run_training):
    before = psutil.Process().memory_info().rss / 2**20
    lines = read_log(run_training("run", train=STEPS), "train")
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    for line in lines:
        for modality in ("image", "text"):
            low, middle, high = (line[f"tau_{modality}_p{percent}"] for percent in ("05", "50", "95"))
            assert low <= middle <= high
            assert low <= line[f"tau_{modality}"] <= high
            assert -8 <= line[f"uniformity_{modality}"] <= 0
        assert line["data_share"] == pytest.approx(line["data_seconds"] / line["seconds"])
        assert 0 <= line["data_share"] <= 1
        assert before / 2 < line["memory_mib"] < 64 * 1024
    assert lines[-1]["tau_image_p05"] < lines[-1]["tau_image_p95"]  # each image has its own


def test_the_gradients_norm_is_logged_without_a_limit_and_changes_nothing(run_training):
    free = run_training("free", train=STEPS, optim={"max_grad_norm": None})
    high = run_training("high", train=STEPS, optim={"max_grad_norm": 1e9})
    assert read_log(free, "train", clock=False) == read_log(high, "train", clock=False)
    assert all(line["grad_norm"] > 0 for line in read_log(free, "train"))


def test_two_processes_log_the_values_of_one(run_training, write_config, tmp_path):
    changes = {"train": STEPS, "model": WITHOUT_DROPOUT, "loss": {"name": "isogclr", "rho": 1.0}}
    run_training("on_1", **changes)
    done = launch(write_config("on_2", **changes), 2)
    assert done.returncode == 0, done.stderr
    one, two = (read_log(tmp_path / name, "train", clock=False) for name in ("on_1", "on_2"))
    assert len(one) == len(two) == 4
    for alone, shared in zip(one, two, strict=True):
        assert {*NAMES, "grad_norm"} < set(alone)
        assert shared.pop("event") == alone.pop("event")
        assert shared == pytest.approx(alone, rel=1e-3)
