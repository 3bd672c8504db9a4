"""``load_model`` on runs, checkpoints, exports, Hugging Face CLIP folders and tags."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from bimodal_cl.models import load_model
from tests.refusals import refused
from tests.test_models.huggingface.folders import pooled, write_word_clip
from tests.test_models.small_models import CAPTIONS, END, TEXT, VISION


def test_a_run_means_its_latest_checkpoint(encoder, pixels, tmp_path):
    run = tmp_path / "run"
    encoder.save(run / "checkpoints" / "step_00000002")
    (run / "checkpoints" / "latest").symlink_to("step_00000002")
    expected = encoder.encode_image(pixels)
    for path in (run, run / "checkpoints" / "latest", str(run / "checkpoints" / "step_00000002")):
        model = load_model(path)
        assert not model.training
        assert torch.equal(model.encode_image(pixels), expected)


def write_export(folder, encoder, preprocess) -> None:
    model = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT, "custom_text": True}
    config = {"model_cfg": model, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(encoder.state_dict(), folder / "open_clip_model.safetensors")


def test_an_export_in_open_clips_form(encoder, pixels, tmp_path):
    import open_clip

    write_export(tmp_path, encoder, {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "size": [32, 32]})
    model = load_model(tmp_path)
    theirs = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(
        model.encode_image(images), theirs.encode_image(images, normalize=True), atol=1e-6, rtol=0
    )
    tokens = model.tokenize(CAPTIONS)
    torch.testing.assert_close(model.encode_text(tokens), theirs.encode_text(tokens, normalize=True), atol=1e-6, rtol=0)
    assert torch.equal(model.encode_text(tokens), encoder.encode_text(tokens))
    grey = (pixels.float() / 255 - 0.5) / 0.25
    torch.testing.assert_close(model.encode_image(pixels), model.encode_image(grey), atol=1e-6, rtol=0)
    (tmp_path / "open_clip_model.safetensors").unlink()
    with refused(r"has no weights: none of open_clip_model\.safetensors"):
        load_model(tmp_path)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_an_exports_preprocessing_is_open_clips(mode, encoder, tmp_path):
    import open_clip

    preprocess = {"mean": 0.5, "std": [0.25] * 3, "interpolation": "bilinear", "resize_mode": mode, "fill_color": 99}
    write_export(tmp_path, encoder, {**preprocess, "mode": "RGB", "size": 32})
    _, _, theirs = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 97, 3), dtype=np.uint8))
    model = load_model(tmp_path)
    assert torch.equal(model.preprocess(image), theirs(image))
    model.save(tmp_path / "checkpoint")
    assert torch.equal(load_model(tmp_path / "checkpoint").preprocess(image), theirs(image))


@pytest.mark.parametrize(
    ("preprocess", "match"),
    [
        ({"crop_pct": 0.9}, r"open_clip_config.json: preprocess_cfg: unknown key 'crop_pct'"),
        ({"mode": "L"}, r"preprocess_cfg.mode must be RGB, got 'L'"),
        ({"resize_mode": "longst"}, r"preprocess_cfg.resize_mode 'longst' is unknown; did you mean 'longest'"),
        ({"interpolation": "cubic"}, r"preprocess_cfg.interpolation 'cubic' is unknown; did you mean 'bicubic'"),
        ({"mean": [0.5]}, r"preprocess_cfg.mean must be one or three numbers, got \[0.5\]"),
        ({"std": 0}, r"preprocess_cfg.std must be above 0, got 0"),
    ],
)
def test_an_exports_preprocessing_that_cannot_be_done_is_refused(preprocess, match, encoder, tmp_path):
    write_export(tmp_path, encoder, preprocess)
    with refused(match):
        load_model(tmp_path)


def test_an_exports_other_size_gives_a_warning(encoder, tmp_path):
    write_export(tmp_path, encoder, {"size": [48, 48]})
    with pytest.warns(UserWarning, match=r"preprocess_cfg.size \[48, 48\] is not the model's 32, which is used"):
        assert load_model(tmp_path).transform.image_size == 32


def test_older_checkpoints_without_new_keys_load(encoder, tmp_path):
    encoder.save(tmp_path)
    path = tmp_path / "model.json"
    values = json.loads(path.read_text())
    del values["hf_vision_config"]
    old = {key: values["preprocess"][key] for key in ("mean", "std", "interpolation", "resize_mode")}
    path.write_text(json.dumps({**values, "preprocess": old}))
    assert load_model(tmp_path).transform == encoder.transform
    path.write_text(json.dumps({**values, "preprocess": {**old, "resize": 3}}))
    with refused(r"model.json: unknown key 'preprocess.resize'; did you mean 'resize_size'"):
        load_model(tmp_path)


@pytest.mark.parametrize(("activation", "eos_token_id"), [("quick_gelu", END), ("gelu", 2)])
def test_a_hugging_face_clip_folder_gives_transformers_own_features(activation, eos_token_id, tmp_path):
    theirs = write_word_clip(tmp_path / "clip", activation, eos_token_id)
    preprocessor = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2], "resample": 2}
    (tmp_path / "clip" / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    model = load_model(tmp_path / "clip")
    images, tokens = torch.randn(3, 3, 32, 32), model.tokenize(CAPTIONS)
    image_features = pooled(theirs.get_image_features(pixel_values=images))
    text_features = pooled(theirs.get_text_features(input_ids=tokens))
    torch.testing.assert_close(model.encode_image(images), image_features, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.encode_text(CAPTIONS), text_features, atol=1e-5, rtol=0)
    assert model.architecture.preprocess["mean"] == [0.5, 0.4, 0.3]
    assert model.architecture.preprocess["interpolation"] == "bilinear"
    # The saved checkpoint needs nothing of the folder.
    model.save(tmp_path / "checkpoint")
    shutil.rmtree(tmp_path / "clip")
    again = load_model(tmp_path / "checkpoint")
    assert torch.equal(again.encode_text(CAPTIONS), model.encode_text(CAPTIONS))
    assert torch.equal(again.encode_image(images), model.encode_image(images))


def test_hugging_face_folders_that_are_no_clip_are_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with refused("model_type 'bert' is a text model alone"):
        load_model(tmp_path)
    write_word_clip(tmp_path, activation="relu")
    with refused("hidden_act must be quick_gelu in both towers or one of gelu,"):
        load_model(tmp_path)


def test_hugging_face_weights_that_are_not_the_configs_are_refused(tmp_path, capfd):
    write_word_clip(tmp_path)
    path = tmp_path / "model.safetensors"
    whole, tensors = path.read_bytes(), load_file(path)
    damaged = {
        r"32 missing \(text_model\.encoder\.layers\.1": {k: t for k, t in tensors.items() if ".layers.1." not in k},
        r"1 unexpected \(visual_projection\.bias\)": {**tensors, "visual_projection.bias": torch.ones(1)},
        r"1 of another shape \(text_projection\.weight\)": {**tensors, "text_projection.weight": torch.ones(24, 3)},
    }
    capfd.readouterr()
    for match, changed in damaged.items():
        save_file(changed, path, metadata={"format": "pt"})
        with refused(f"the weights do not match its config.json: .*{match}"):
            load_model(tmp_path)
    path.write_bytes(whole[:-100])
    with refused(r"model\.safetensors: damaged, cut short or not a safetensors file"):
        load_model(tmp_path)
    assert capfd.readouterr().err == ""  # transformers' table is not printed


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ("ViT-B-32", "'ViT-B-32' is not a folder; an open_clip model is loaded by NAME/TAG, such as ViT-B-32/openai"),
        ("ViT-B-32/laion2b_s34b", "nor a tag of 'ViT-B-32'; did you mean 'laion2b_s34b_b79k'"),
        ("ViT-B-33/openai", "neither a folder nor an open_clip NAME/TAG; did you mean 'ViT-B-32/openai'"),
        ("RN50/openai", "weights 'RN50/openai' are not in the cache and cannot be fetched"),
    ],
)
def test_tags_without_weights_are_refused_in_one_line(what, match, offline):
    with refused(match):
        load_model(what)


def test_paths_that_hold_no_model_are_named(tmp_path):
    (tmp_path / "flickr8k").mkdir()
    with refused(r"'.*flickr8' is neither a folder .*did you mean '.*flickr8k'"):
        load_model(tmp_path / "flickr8")
    (tmp_path / "flickr8k" / "captions.txt").touch()
    with refused(r"holds no model: neither model\.json"):
        load_model(tmp_path / "flickr8k")
    (tmp_path / "flickr8k" / "checkpoints").mkdir()
    with refused("the run has no checkpoint yet"):
        load_model(tmp_path / "flickr8k")
    (tmp_path / "weights.pt").touch()
    with refused(r"weights\.pt: is empty"):
        load_model(tmp_path / "weights.pt")
