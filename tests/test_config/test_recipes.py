"""Every recipe of configs/train loads, says what it is for, and holds the settings that its header names."""

import re
import warnings
from pathlib import Path

import pytest
import yaml

from bimodal_cl.config.checks import check_config
from bimodal_cl.config.yaml_files import load_config

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "configs" / "train").glob("*.yaml"))
PAPERS = ("cc3m_isogclr", "cc3m_fastclip_v3", "cc12m_fastclip_v3", "laion400m_fastclip_v3")


def recipe(name: str) -> Path:
    return ROOT / "configs" / "train" / f"{name}.yaml"


def header(path: Path) -> str:
    """Return the comment above the first key, as one line."""
    lines = path.read_text().splitlines()
    comment = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
    return " ".join(" ".join(comment).replace("#", " ").split())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_load_without_a_warning_and_say_how_they_are_run(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = load_config([path])
        check_config(config)
    text = header(path)
    for word in ("Command:", "Hardware:", "Score:"):
        assert word in text, word
    if path.stem != "quickstart":
        assert "Data:" in text
        assert f"bimodal_cl.train --config configs/train/{path.name}" in text.replace(
            "bimodal-train", "bimodal_cl.train"
        )
        assert config.output == f"runs/{path.stem}"


@pytest.mark.parametrize("name", PAPERS)
def test_recipes_of_papers_name_their_source_and_that_they_were_not_run(name):
    text = header(recipe(name))
    assert re.search(r"Source: .*arXiv \d{4}\.\d{5}", text)
    assert "Score: not run here." in text
    assert "Differs: " in text
    assert re.search(r"Data: .*bimodal-prep index shards/\w+", text)


@pytest.mark.parametrize("name", PAPERS)
def test_the_radius_is_one_that_the_batch_can_show(name):
    config = load_config([recipe(name)])
    assert not list(config.loss.concerns_of_batch(config.train.global_batch_size - 1))


@pytest.mark.parametrize(
    ("name", "fragment"), [("cc3m_isogclr", "isogclr"), ("cc3m_fastclip_v3", "fastclip_v3")], ids=lambda name: name
)
def test_recipes_hold_the_loss_of_their_papers_fragment(name, fragment):
    plain, laid_over = recipe(name), ROOT / "configs" / "loss" / f"{fragment}.yaml"
    assert load_config([plain]) == load_config([plain, laid_over])
    assert yaml.safe_load(plain.read_text())["loss"] == yaml.safe_load(laid_over.read_text())["loss"]


@pytest.mark.parametrize("fragment", ["macl", "sogclr", "clip", "fastclip_v1", "fastclip_v2"])
def test_other_losses_are_laid_over_the_recipes_of_cc3m(fragment):
    laid_over = ROOT / "configs" / "loss" / f"{fragment}.yaml"
    plain = load_config([recipe("cc3m_fastclip_v3")])
    other = load_config([recipe("cc3m_fastclip_v3"), laid_over], {("optim", "temperature_learning_rate"): None})
    assert other.model == plain.model and other.loss.name != plain.loss.name
    assert other.optim.temperature_learning_rate is None
    seeds = load_config([recipe("cc3m_isogclr"), laid_over])
    assert seeds.model.text.hf_model_name == "distilbert-base-uncased"


@pytest.mark.parametrize(
    ("name", "lr", "lr_min", "wd", "warmup", "batch", "gpus", "epochs", "lr_tau"),
    [
        ("cc3m_isogclr", 2e-4, 1e-5, 0.02, 2000, 256, 2, 30, None),
        ("cc3m_fastclip_v3", 1e-3, 0.0, 0.1, 10000, 128, 8, 37, 2e-4),
        ("cc12m_fastclip_v3", 4e-4, 0.0, 0.1, 10000, 256, 8, 33, 1e-4),
        ("laion400m_fastclip_v3", 2e-4, 4e-5, 0.2, 13200, 320, 16, 30, 5e-5),
    ],
)
def test_optimization_is_that_of_the_authors_commands(name, lr, lr_min, wd, warmup, batch, gpus, epochs, lr_tau):
    config = load_config([recipe(name)])
    optim, train = config.optim, config.train
    assert (optim.learning_rate, optim.min_learning_rate, optim.weight_decay) == (lr, lr_min, wd)
    assert (optim.warmup_steps, optim.temperature_learning_rate, optim.max_grad_norm) == (warmup, lr_tau, None)
    assert (train.global_batch_size, train.num_epochs) == (batch * gpus, epochs)
    assert f"{gpus} GPUs" in header(recipe(name)) and f"{batch} " in header(recipe(name))
