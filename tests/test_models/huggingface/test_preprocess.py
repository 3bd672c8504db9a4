"""CLIP folders with all kinds of preprocessing: features equal transformers', or the key is refused by name."""

from __future__ import annotations

import json

import pytest
import torch

from bimodal_cl.models import load_model
from bimodal_cl.models.huggingface.preprocess import read_preprocess
from tests.refusals import refused
from tests.test_models.huggingface.folders import (
    SIDE,
    SQUARE,
    assert_same_image_features,
    blocks,
    pooled,
    write_clip,
    write_clip_tokenizer,
)

CROPPED = {"size": {"shortest_edge": SIDE}, "crop_size": SQUARE}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A folder of a CLIPModel without preprocessing, and the model."""
    folder = tmp_path_factory.mktemp("clip")
    return folder, write_clip(folder)


@pytest.fixture
def folder(clip, tmp_path):
    """The same folder for one test to write into, and the model."""
    for file in clip[0].iterdir():
        (tmp_path / file.name).hardlink_to(file)
    return tmp_path, clip[1]


def write_processor(folder, processor, form: str = "preprocessor") -> None:
    """Write an image processor's file as transformers 4 does, or as transformers 5 does for a whole processor."""
    if form == "preprocessor":
        processor.save_pretrained(folder)
        return
    nested = {"image_processor": json.loads(processor.to_json_string()), "processor_class": "CLIPProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(nested))


VARIANTS = {
    "plain": CROPPED,
    "squash": {"size": SQUARE, "do_center_crop": False},
    "squash, then crop": {"size": {"height": 40, "width": 40}, "crop_size": SQUARE},
    "resize 40, crop 32": {"size": {"shortest_edge": 40}, "crop_size": SQUARE},
    "resize 41, crop 32": {"size": {"shortest_edge": 41}, "crop_size": SQUARE},
    "smaller than the crop": {"size": {"shortest_edge": 20}, "crop_size": SQUARE},
    "longest edge": {"size": {"shortest_edge": SIDE, "longest_edge": 50}, "crop_size": SQUARE},
    "inside a square": {"size": {"max_height": SIDE, "max_width": SIDE}, "crop_size": SQUARE},
    "numbers": {"size": SIDE, "crop_size": SIDE},
    "no size": {"crop_size": SQUARE},
    "no resize": {**CROPPED, "do_resize": False},
    "no normalisation": {**CROPPED, "do_normalize": False},
    "no rescaling": {**CROPPED, "do_rescale": False, "image_mean": [120.0] * 3, "image_std": [60.0] * 3},
    "neither": {**CROPPED, "do_rescale": False, "do_normalize": False, "size": {"shortest_edge": 40}},
    "to [0, 2]": {**CROPPED, "rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
    "one mean": {**CROPPED, "image_mean": 0.5, "image_std": 0.25},
    "nearest": {**CROPPED, "resample": 0},
    "lanczos": {**CROPPED, "resample": 1},
    "bilinear": {**CROPPED, "resample": 2},
    "off": {**CROPPED, "do_pad": False, "do_convert_rgb": None},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_features_are_transformers_own(options, folder):
    from transformers import CLIPImageProcessor

    path, theirs = folder
    processor = CLIPImageProcessor(**options)
    write_processor(path, processor)
    assert_same_image_features(load_model(path), theirs, processor)
    with_file = read_preprocess(path, "clip", SIDE)
    (path / "preprocessor_config.json").unlink()
    write_processor(path, processor, "processor")
    assert read_preprocess(path, "clip", SIDE) == with_file


def test_another_familys_processor_brings_its_own_defaults(folder):
    from transformers import SiglipImageProcessor, ViTImageProcessor

    path, theirs = folder
    for kind, size in ((SiglipImageProcessor, SQUARE), (ViTImageProcessor, SIDE)):
        values = {"image_processor_type": kind.__name__, "size": size}
        (path / "preprocessor_config.json").write_text(json.dumps(values))
        assert_same_image_features(load_model(path), theirs, kind(size=size))


def test_an_old_file_of_numbers_means_the_shortest_edge(folder):
    from transformers import CLIPImageProcessor

    path, theirs = folder
    old = {"feature_extractor_type": "CLIPFeatureExtractor", "do_resize": True, "size": 40, "resample": 3}
    old |= {"do_center_crop": True, "crop_size": SIDE, "do_normalize": True, **HALF}
    (path / "preprocessor_config.json").write_text(json.dumps(old))
    assert_same_image_features(
        load_model(path), theirs, CLIPImageProcessor(size={"shortest_edge": 40}, crop_size=SQUARE, **HALF)
    )


def test_a_null_switches_a_step_off_and_filters_have_names(folder):
    from transformers import AutoImageProcessor

    path, theirs = folder
    for options in (
        {"do_normalize": None},
        {"do_rescale": None},
        {"do_center_crop": None, "size": SQUARE},
        {"resample": "bilinear"},
    ):
        values = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 40}, "crop_size": SIDE}
        (path / "preprocessor_config.json").write_text(json.dumps({**values, **HALF, **options}))
        assert_same_image_features(load_model(path), theirs, AutoImageProcessor.from_pretrained(path))


def test_transformers_order_of_the_two_files(folder):
    from transformers import AutoImageProcessor, CLIPImageProcessor

    path, theirs = folder
    write_processor(path, CLIPImageProcessor(**CROPPED, **HALF), "processor")
    write_processor(path, CLIPImageProcessor(size={"shortest_edge": 48}, crop_size=SQUARE))
    assert_same_image_features(load_model(path), theirs, AutoImageProcessor.from_pretrained(path))


def test_no_file_is_the_familys_usual_preprocessing_with_a_warning(folder):
    from transformers import CLIPImageProcessor

    with pytest.warns(UserWarning, match="no preprocessor_config.json, so its family's usual"):
        model = load_model(folder[0])
    assert_same_image_features(model, folder[1], CLIPImageProcessor(**CROPPED))


def test_the_preprocessing_survives_saving_and_grows_with_the_images(folder, tmp_path):
    from bimodal_cl.models.huggingface.folder import load_huggingface

    size = {"shortest_edge": 40, "longest_edge": 60}
    values = {"size": size, "crop_size": SIDE, "resample": 2, "do_normalize": False}
    (folder[0] / "preprocessor_config.json").write_text(json.dumps(values))
    model = load_huggingface(folder[0])
    model.save(tmp_path / "checkpoint")
    again = load_model(tmp_path / "checkpoint")
    image = blocks(97, 61)
    assert torch.equal(again.preprocess(image), model.preprocess(image))
    assert again.transform == model.transform
    larger = load_huggingface(folder[0], image_size=64)
    assert (larger.transform.resize_size, larger.transform.max_long_side) == (80, 120)
    assert larger.encode_image(larger.preprocess(image)[None]).shape == (1, 24)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"do_pad": True}, "do_pad = True is not supported"),
        ({"do_flip": True}, "do_flip = True is not supported"),
        ({"do_reduce_labels": True}, "do_reduce_labels = True is not supported"),
        ({"crop_pct": 0.9}, "crop_pct = 0.9 is not supported"),
        ({"crop_size": {"height": 32, "width": 24}}, r"crop_size = {'height': 32, 'width': 24} is not the model's"),
        ({"crop_size": 24}, r"crop_size = {'height': 24, 'width': 24} is not the model's image_size, 32 x 32"),
        ({"size": {"height": 40, "width": 36}}, "size = {'height': 40, 'width': 36} is not square"),
        ({"size": {"longest_edge": 32}}, "size = {'longest_edge': 32} is not a size: height and width, shortest_edge"),
        ({"size": "32"}, "size = '32' is not a size"),
        ({"size": 0}, "size = 0 is not a size"),
        ({"size": SQUARE, "do_center_crop": False, "resample": "cubic"}, "resample = 'cubic' is not one of Pillow's"),
        ({"size": 32, "do_center_crop": False}, "do_center_crop = False leaves images that are not square"),
        ({"size": [40, 40], "do_center_crop": False}, "size = 40 is not the model's image_size, 32"),
        ({"do_resize": False, "do_center_crop": False}, "do_resize = False without do_center_crop leaves images"),
        ({"image_mean": [0.5, 0.5]}, r"image_mean = \[0.5, 0.5\] is not three numbers"),
        ({"image_std": 0}, "image_std = 0 is not three numbers"),
        ({"rescale_factor": 0}, "rescale_factor = 0 is not above 0"),
        ({"image_processor_type": "BlipImageProcessor"}, "'BlipImageProcessor' is not one of CLIP"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_what_cannot_be_done_is_refused_by_file_and_key(options, match, nested, tmp_path):
    values = {"crop_size": SIDE, "size": SIDE, **options}
    name = "processor_config.json" if nested else "preprocessor_config.json"
    (tmp_path / name).write_text(json.dumps({"image_processor": values} if nested else values))
    where = r"/processor_config\.json: image_processor\." if nested else r"/preprocessor_config\.json: "
    with refused(f"{where}.*{match}"):
        read_preprocess(tmp_path, "clip", SIDE)


@pytest.mark.parametrize("activation", ["gelu", "gelu_pytorch_tanh", "gelu_fast"])
def test_texts_and_other_activations(activation, tmp_path):
    theirs = write_clip(tmp_path, activation)
    model = load_model(tmp_path)  # without a tokenizer, open_clip's is used, which is OpenAI's
    tokens = model.tokenize(["a dog", "a photo of two cats"])
    with torch.no_grad():
        torch.testing.assert_close(
            model.encode_text(tokens), pooled(theirs.get_text_features(input_ids=tokens)), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("options", [{}, {"model_max_length": 8}, {"padding_side": "left"}])
def test_texts_with_the_folders_own_tokenizer(options, tmp_path):
    tokenizer = write_clip_tokenizer(tmp_path, **options)
    theirs = write_clip(tmp_path)
    model = load_model(tmp_path)
    texts = ["a Dog", "cats &amp; dogs", "", "two  photos of\ta caf\u00e9!"]
    texts += ["a very long caption of a dog, a cat and a horse"]
    for text in texts:
        length = options.get("model_max_length", 12)
        tokens = tokenizer([text], truncation=True, max_length=length, return_tensors="pt")
        with torch.no_grad():
            torch.testing.assert_close(
                model.encode_text([text]), pooled(theirs.get_text_features(**tokens)), atol=1e-5, rtol=0
            )


def test_missing_tensors_are_refused(folder):
    from safetensors.torch import load_file, save_file

    path = folder[0] / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(path).items() if "text_model" not in name}
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})
    with refused(r"do not match its config.json: 36 missing \(text_model\."):
        load_model(folder[0])
