"""Heads joined to their towers give the features that the heads gave on the towers' features."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from bimodal_cl.models import load_model
from bimodal_cl.models.features.heads import Standardize, load_heads
from bimodal_cl.models.weights.file_names import HEADS_FILE, WEIGHTS_FILE
from tests.refusals import refused
from tests.test_models.features.small_heads import Made, make
from tests.test_models.small_models import CAPTIONS

POOLERS = ["mean_pooler", "max_pooler", "cls_pooler", "cls_last_hidden_state_pooler"]


@torch.no_grad()
def assert_joined_exactly(made: Made) -> None:
    model = load_model(made.folder)
    expected = made.heads.encode_image(made.images)
    torch.testing.assert_close(model.encode_image(made.pixels), expected, atol=1e-5, rtol=0)
    expected = made.heads.encode_text(made.texts)
    torch.testing.assert_close(model.encode_text(CAPTIONS), expected, atol=1e-5, rtol=0)
    assert (expected - expected.mean(0)).abs().max() > 1e-3  # a tower that gives a constant would show nothing


@pytest.mark.parametrize(
    ("kind", "pooler"),
    [*zip(("linear", "mlp", "residual"), POOLERS, strict=False), ("linear", "cls_last_hidden_state_pooler")],
)
def test_the_joined_model_gives_the_features_of_the_heads(kind, pooler, tmp_path):
    text = {"hf_pooler_type": pooler, "hf_proj_type": kind}
    made = make(tmp_path, vision={"timm_proj": kind, "timm_drop": 0.3}, text=text)
    # BERT's own pooler comes after its last layer norm, so the feature is not standardised.
    assert bool(made.towers.text_norm) == (pooler != "cls_pooler")
    assert torch.equal(made.heads.text.standardize.std, torch.ones(32)) == (pooler == "cls_pooler")
    assert_joined_exactly(made)


@pytest.mark.parametrize(
    ("family", "pooler", "standardised"),
    [
        ("roberta", "mean_pooler", True),
        ("distilbert", "cls_pooler", True),
        ("clip_text_model", "cls_pooler", True),
        ("t5", "max_pooler", False),  # its norm has no bias that could take up a mean
        ("albert", "mean_pooler", False),  # its layers share one norm
    ],
)
def test_text_towers_of_any_family_join(family, pooler, standardised, tmp_path):
    made = make(tmp_path, family, text={"hf_pooler_type": pooler})
    assert bool(made.towers.text_norm) == standardised
    assert_joined_exactly(made)


@pytest.mark.parametrize("vision", [{"timm_pool": "token", "timm_proj": "mlp"}, {"timm_pool": "avg"}])
def test_a_vision_transformer_joins(vision, tmp_path):
    assert_joined_exactly(make(tmp_path, vision={"timm_model_name": "test_vit", **vision}))


def test_saved_heads_are_loaded_again_without_their_towers(tmp_path):
    made = make(tmp_path, vision={"timm_proj": "mlp"}, text={"hf_proj_type": "residual"})
    shutil.rmtree(tmp_path / "towers")
    again = load_heads(made.folder)
    assert not again.training
    assert torch.equal(again.encode_image(made.images), made.heads.encode_image(made.images))
    assert torch.equal(again.encode_text(made.texts.half()), made.heads.encode_text(made.texts.half()))


def test_averaged_weights_are_joined_too(tmp_path):
    made = make(tmp_path)
    shutil.copy(made.folder / WEIGHTS_FILE, made.folder / "ema.safetensors")
    with torch.no_grad():
        made.heads.text.proj.weight.add_(1)
    made.heads.save(made.folder)
    model, averaged = load_model(made.folder), load_model(made.folder, weights="ema")
    assert torch.equal(model.text.proj.weight, averaged.text.proj.weight + 1)


def test_towers_that_moved_are_found_by_the_path_in_the_file(tmp_path):
    made = make(tmp_path)
    expected = load_model(made.folder).encode_text(CAPTIONS)
    moved = (tmp_path / "towers").rename(tmp_path / "moved")
    with refused(f"holds the heads alone, and their towers are not in {tmp_path}/towers: .*{HEADS_FILE}"):
        load_model(made.folder)
    path = made.folder / HEADS_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "folder": str(moved)}))
    assert torch.equal(load_model(made.folder).encode_text(CAPTIONS), expected)


def test_other_towers_than_those_of_the_heads_are_refused(tmp_path):
    made = make(tmp_path)
    with torch.no_grad():
        made.towers.encoder.text.transformer.get_input_embeddings().weight.add_(1)
    made.towers.encoder.save(tmp_path / "towers")
    with refused(f"its heads were trained on other towers than those in {tmp_path}/towers now"):
        load_model(made.folder)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda values: values.pop("text_norm"), "heads.json: .*text_norm"),
        (lambda values: values.update(norm=""), "heads.json: .*norm"),
    ],
)
def test_a_damaged_reference_is_refused(change, match, tmp_path):
    made = make(tmp_path)
    path = made.folder / HEADS_FILE
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with refused(match):
        load_model(made.folder)


def test_damaged_heads_are_refused(tmp_path):
    made = make(tmp_path)
    path = made.folder / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-50])
    for load in (load_model, load_heads):
        with refused(r"model\.safetensors: cannot be read"):
            load(made.folder)


def test_a_feature_that_never_changed_keeps_its_scale():
    """A unit that is off in all training data may be on in others."""
    mean, variance = torch.tensor([0.0, 3.0, 3.0, -2.0]), torch.tensor([0.0, 1e-15, 4.0, 0.25])
    standardize = Standardize(mean.double(), variance.double())
    assert standardize.std.tolist() == [1.0, 1.0, 2.0, 0.5]
    assert standardize(torch.tensor([0.5, 3.0, 5.0, -2.5])).tolist() == [0.5, 0.0, 1.0, -1.0]
