"""Features, inputs and checkpoints of a dual encoder."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bimodal_cl.models import build_model, load_model
from bimodal_cl.models.weights.state_dict import load_weights, save_weights
from tests.refusals import refused
from tests.test_models.small_models import CAPTIONS, TEXT, VISION


def test_features_are_unit_norm_float32_also_under_autocast(encoder, pixels):
    plain_image, plain_text = encoder(pixels, encoder.tokenize(CAPTIONS))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image_features, text_features = encoder(pixels, encoder.tokenize(CAPTIONS))
    for features, plain in ((image_features, plain_image), (text_features, plain_text)):
        assert features.shape == (3, 16)
        assert features.dtype == torch.float32
        # Normalisation in bfloat16 would leave errors of 1e-3 and more.
        torch.testing.assert_close(features.norm(dim=1), torch.ones(3), atol=1e-6, rtol=0)
        torch.testing.assert_close(features, plain, atol=0.05, rtol=0)
        assert not torch.equal(features, plain)


def test_uint8_pixels_are_normalised_with_the_models_mean_and_deviation(encoder, pixels):
    mean, std = (torch.tensor(encoder.architecture.preprocess[key]).view(3, 1, 1) for key in ("mean", "std"))
    by_hand = (pixels.double() / 255 - mean) / std
    torch.testing.assert_close(encoder.encode_image(pixels), encoder.encode_image(by_hand.float()), atol=1e-6, rtol=0)
    # OpenAI's statistics
    assert mean.flatten().tolist() == pytest.approx([0.4815, 0.4578, 0.4082], abs=1e-4)


def test_preprocess_gives_what_encode_image_takes(encoder):
    array = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    ready = encoder.preprocess(Image.fromarray(array))
    raw = torch.from_numpy(array).permute(2, 0, 1)
    torch.testing.assert_close(encoder.encode_image(ready[None]), encoder.encode_image(raw[None]), atol=1e-5, rtol=0)
    grey = encoder.preprocess(Image.new("L", (90, 51), 128))
    assert grey.shape == (3, 32, 32)


def test_texts_and_their_tokens_give_the_same_features(encoder):
    tokens = encoder.tokenize(CAPTIONS)
    assert tokens.dtype == torch.int64
    assert tokens.shape == (3, 12)
    assert torch.equal(encoder.encode_text(CAPTIONS), encoder.encode_text(tokens))
    assert encoder.tokenize(["a dog " * 100]).shape == (1, 12)


def test_wrong_inputs_are_refused_with_their_values(encoder, pixels):
    with pytest.raises(ValueError, match=r"pixels must be \[batch, 3, 32, 32\], got \[3, 3, 16, 32\]"):
        encoder.encode_image(pixels[:, :, :16])
    with pytest.raises(ValueError, match="texts must be a list of strings, got the string 'a dog'"):
        encoder.encode_text("a dog")


@pytest.mark.parametrize("tower", ["test_vit", "test_convnext2", "resnet18", None])
def test_every_trainable_parameter_takes_part(tower, pixels):
    vision = VISION if tower is None else {"image_size": 32, "timm_model_name": tower}
    model = build_model(embed_dim=16, vision=vision, text=TEXT)
    assert model.training
    image_features, text_features = model(pixels, model.tokenize(CAPTIONS))
    (image_features * text_features.roll(1, 0)).sum().backward()
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert names == {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert {name for name, _ in model.named_parameters()} - names == {"logit_scale"}


def test_the_same_seed_builds_the_same_model():
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(build_model(embed_dim=16, vision=VISION, text=TEXT).state_dict())
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    assert not all(torch.equal(models[0][name], models[2][name]) for name in models[0])


def test_a_saved_model_gives_the_same_features(encoder, pixels, tmp_path):
    encoder.save(tmp_path / "checkpoint")
    again = load_model(tmp_path / "checkpoint")
    assert again.architecture == encoder.architecture
    assert not again.training
    assert torch.equal(again.encode_image(pixels), encoder.encode_image(pixels))
    assert torch.equal(again.encode_text(CAPTIONS), encoder.encode_text(CAPTIONS))


def test_weights_are_loaded_in_place(encoder, pixels, tmp_path):
    encoder.save(tmp_path)
    other = build_model(embed_dim=16, vision=VISION, text=TEXT).eval()
    assert not torch.equal(other.encode_image(pixels), encoder.encode_image(pixels))
    other.load_weights(tmp_path)
    assert torch.equal(other.encode_image(pixels), encoder.encode_image(pixels))


def test_a_timm_tower_of_another_size_survives_a_checkpoint(pixels, tmp_path):
    model = build_model(embed_dim=16, vision={"image_size": 32, "timm_model_name": "test_vit"}, text=TEXT).eval()
    model.save(tmp_path)
    assert torch.equal(load_model(tmp_path).encode_image(pixels), model.encode_image(pixels))


class TiedLayers(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.second.weight = self.first.weight


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    from safetensors import safe_open

    source, target = TiedLayers(), TiedLayers()
    save_weights(source, tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert sorted(file.keys()) == ["first.bias", "first.weight", "second.bias"]
    load_weights(target, tmp_path / "model.safetensors")
    assert target.second.weight is target.first.weight
    assert torch.equal(target.first.weight, source.first.weight)
    assert torch.equal(target.second.bias, source.second.bias)


def test_weights_of_another_model_are_refused_by_name(encoder, tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(nn.ModuleDict({"text": encoder.text, "extra": nn.Linear(2, 2)}), path)
    with refused(r"model\.safetensors: .*missing \(logit_scale, visual\..*2 unexpected \(extra\.b"):
        encoder.load_weights(path)
    save_weights(TiedLayers(4), path)
    with refused(r"'first\.weight' has shape \[4, 4\], not \[5, 5\]"):
        load_weights(TiedLayers(5), path)


def test_damaged_checkpoints_are_refused_by_file(encoder, tmp_path):
    encoder.save(tmp_path / "whole")
    for damage, match in (
        ("missing", r"'model\.safetensors' is missing"),
        ("truncated", r"model\.safetensors: damaged or not a safetensors file"),
        ("no_json", r"model\.json: not valid JSON"),
        ("other_key", r"model\.json: unknown key 'embeddim'; did you mean 'embed_dim'"),
        ("other_version", r"model\.json: version 7 is not 1"),
    ):
        folder = tmp_path / damage
        shutil.copytree(tmp_path / "whole", folder)
        weights, architecture = folder / "model.safetensors", folder / "model.json"
        if damage == "missing":
            weights.unlink()
        elif damage == "truncated":
            weights.write_bytes(weights.read_bytes()[:1000])
        else:
            text = architecture.read_text()
            changes = {
                "no_json": text[:50],
                "other_key": text.replace("embed_dim", "embeddim"),
                "other_version": text.replace('"version": 1', '"version": 7'),
            }
            architecture.write_text(changes[damage])
        with refused(match):
            load_model(folder)
