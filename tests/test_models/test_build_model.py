"""Build models from names, inline keys, timm towers and whole-model weights; refuse every mistake in them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from bimodal_cl.models import build_model
from tests.refusals import refused
from tests.test_models.small_models import CAPTIONS, TEXT, VISION, text_folder

TIMM = {"image_size": 32, "timm_model_name": "test_vit"}


def test_a_named_config_is_open_clips_own_model():
    import open_clip

    model = build_model("ViT-S-32-alt", image_size=64).eval()
    theirs = open_clip.create_model("ViT-S-32-alt", force_image_size=64, force_custom_text=True).eval()
    theirs.load_state_dict(model.state_dict())  # the same names and shapes
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = theirs.encode_image(images, normalize=True)
        torch.testing.assert_close(model.encode_image(images), expected, atol=1e-6, rtol=0)
        tokens = open_clip.get_tokenizer("ViT-S-32-alt")(CAPTIONS)
        expected = theirs.encode_text(tokens, normalize=True)
        torch.testing.assert_close(model.encode_text(CAPTIONS), expected, atol=1e-6, rtol=0)
    assert (model.image_size, model.dim, model.architecture.name) == (64, 256, "ViT-S-32-alt")


def test_the_papers_setting_resnet50_and_distilbert(tmp_path):
    model = build_model(
        embed_dim=256,
        vision={"image_size": 64, "timm_model_name": "resnet50"},
        text={
            "hf_model_name": str(text_folder(tmp_path, "distilbert")),
            "hf_model_pretrained": False,
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "hf_proj_type": "linear",
            "context_length": 30,
        },
    )
    assert model.tokenize(CAPTIONS).shape == (3, 30)
    assert model.eval().encode_text(CAPTIONS).shape == (3, 256)


def test_open_clips_resnet_takes_another_size():
    model = build_model(embed_dim=8, vision={"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}, text=TEXT)
    assert model.eval().encode_image(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape == (1, 8)


@pytest.mark.parametrize("vision", [VISION, TIMM], ids=["open_clip", "timm"])
@pytest.mark.parametrize("form", ["folder", "file"])
def test_whole_model_weights_move_to_another_image_size(vision, form, tmp_path):
    torch.manual_seed(0)
    source = build_model(embed_dim=16, vision={**vision, "image_size": 64}, text=TEXT).eval()
    source.save(tmp_path)
    path = tmp_path if form == "folder" else tmp_path / "model.safetensors"
    if form == "file" and vision is TIMM:
        vision = {**vision, "image_size": 64}  # a weights file alone does not state its image size
    same = build_model(embed_dim=16, vision=vision, text=TEXT, pretrained=str(path), image_size=64).eval()
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(same.encode_image(images), source.encode_image(images))
    # Position embeddings are resampled, so a blank image's features stay close; new weights would move them.
    half = build_model(embed_dim=16, vision=vision, text=TEXT, pretrained=str(path), image_size=32).eval()
    assert half.image_size == 32
    assert half.encode_image(torch.zeros(1, 3, 32, 32))[0] @ source.encode_image(torch.zeros(1, 3, 64, 64))[0] > 0.9
    assert torch.equal(half.encode_text(CAPTIONS), source.encode_text(CAPTIONS))
    half.save(tmp_path / "half")
    again = build_model(embed_dim=16, vision=vision, text=TEXT, pretrained=str(tmp_path / "half"), image_size=32).eval()
    assert torch.equal(again.encode_image(images[:, :, ::2, ::2]), half.encode_image(images[:, :, ::2, ::2]))


def test_what_is_resized_before_the_crop_grows_with_the_image_size(tmp_path):
    source = build_model(embed_dim=16, vision=VISION, text=TEXT)
    source.architecture = source.architecture.with_preprocess({"resize_size": 40, "interpolation": "bilinear"})
    source.save(tmp_path)
    for size, resized in ((32, 40), (64, 80)):
        vision = {**VISION, "image_size": 48}  # the size of the weights counts, not this one
        model = build_model(embed_dim=16, vision=vision, text=TEXT, pretrained=str(tmp_path), image_size=size)
        transform = model.transform
        assert (transform.image_size, transform.resize_size, transform.interpolation) == (size, resized, "bilinear")


def inline(vision=VISION, text=TEXT, **arguments):
    return {"embed_dim": 16, "vision": vision, "text": text, **arguments}


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"name": "ViT-B-33"}, "model.name 'ViT-B-33' is not an open_clip config; did you mean 'ViT-B-32'"),
        ({"name": "coca_base"}, "captioning model"),
        ({"name": "RN50", "embed_dim": 3}, "model.embed_dim cannot be combined with model.name 'RN50'"),
        ({"embed_dim": 3}, "a model needs model.name, or model.vision and model.text as well"),
        (inline(embed_dim=0), "model.embed_dim must be a whole number of at least 1, got 0"),
        (inline({**VISION, "patchsize": 8}), "model.vision.patchsize .* did you mean 'patch_size'"),
        (inline(text={**TEXT, "contextlength": 8}), "model.text.contextlength .* did you mean 'context_length'"),
        (inline({**VISION, "output_tokens": True}), "model.vision.output_tokens is not a key"),
        (inline({**VISION, "image_size": [32, 64]}), r"model.vision.image_size must be square, got \[32, 64\]"),
        (inline({**VISION, "image_size": 0}), "model.vision.image_size must be a whole number of pixels"),
        (inline(image_size=-1), "model.image_size must be a whole number of pixels of at least 1, got -1"),
        (inline({**TIMM, "width": 64}), "model.vision.width has no effect on a timm tower"),
        (inline({**VISION, "timm_pool": "avg"}), "model.vision.timm_pool has no effect on a tower without timm_model"),
        (inline({"layers": [1, 1, 1, 1], "patch_size": 8}), "model.vision.patch_size has no effect on a ResNet"),
        (inline(text={**TEXT, "hf_proj_type": "mlp"}), "model.text.hf_proj_type has no effect on a tower without hf"),
        (inline(text={"hf_model_name": "x", "width": 64}), "model.text.width has no effect on a Hugging Face tower"),
        (inline(text={**TEXT, "heads": 3}), "model.text cannot be built"),
        (
            inline(text={**TEXT, "vocab_size": 77}),
            "the text tower embeds 77 tokens, but open_clip's tokenizer has 49408",
        ),
        (inline({"layers": [1, 1, 1, 1], "image_size": 48}), "a multiple of 32 for a ResNet, got 48"),
        (inline({"timm_model_name": "test_convnet"}), "'test_convnet' is unknown; did you mean 'test_convnext'"),
        (inline({**TIMM, "image_size": 33}), "the image tower cannot take images of 33 px"),
        (inline({**TIMM, "timm_proj": "none"}), r"image tower gives features of shape \[64\], embed_dim is 16"),
        (inline({**TIMM, "timm_model_pretrained": True}), "built with its weights .offline mode is on .HF_HUB_OFFLINE"),
        (inline(text={"hf_model_name": "no-such-model"}), "cannot be loaded from the hub .offline mode is on"),
        (inline(text={**TEXT, "proj_type": "none"}), r"text tower gives features of shape \[64\], embed_dim is 16"),
        (
            {"name": "ViT-B-32", "pretrained": "laion2b_s34b"},
            "neither a file nor a tag of 'ViT-B-32'; did you mean 'laion2b_s34b_b79k'",
        ),
        ({"name": "ViT-B-32", "pretrained": "openai"}, "weights 'ViT-B-32/openai' are not in the cache"),
        ({"name": "ViT-B-32", "pretrained": "here/weights.pt"}, "'here/weights.pt': no such file or folder"),
        (inline(pretrained="openai"), "'openai': no such file, and tags are known only for a model.name"),
    ],
)
def test_mistakes_are_one_line_that_names_them(arguments, match, offline, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with refused(match):
        build_model(**arguments)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"reduction_mask": "syntax"}, "tokenizer_kwargs {'reduction_mask': 'syntax'}: no such tokenizer .*nltk"),
        ({"lower": True}, "tokenizer_kwargs {'lower': True}: no such tokenizer .*unexpected keyword argument 'lower'"),
        ({"clean": "all"}, "tokenizer_kwargs {'clean': 'all'}: no such tokenizer .*Invalid clean function"),
    ],
)
def test_options_that_the_tokenizer_does_not_have_are_one_line(options, match, monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk", None)  # as if it were not installed
    with refused(match):
        build_model(**inline(text={**TEXT, "tokenizer_kwargs": options}))


def test_weights_of_another_architecture_are_refused(encoder, tmp_path):
    encoder.save(tmp_path)
    deeper = {**VISION, "layers": 2}
    with refused(r"does not match the towers in model: vision.layers 1 and not 2"):
        build_model(**inline(deeper, pretrained=str(tmp_path)))
    (tmp_path / "model.json").unlink()  # a file alone: the tensors decide
    with refused(r"model\.safetensors: .*missing \(visual\.transformer\.resblocks\.1"):
        build_model(**inline(deeper, pretrained=str(tmp_path / "model.safetensors")))
    (tmp_path / "weights.pt").write_bytes(b"nothing")
    with refused(r"weights\.pt: is not a weights file"):
        build_model(**inline(pretrained=str(tmp_path / "weights.pt")))
    with refused(r"holds no model: it is empty"):
        (tmp_path / "empty").mkdir()
        build_model(**inline(pretrained=str(tmp_path / "empty")))


def test_importing_the_package_imports_no_model_library():
    code = (
        "import sys, bimodal_cl.models; from bimodal_cl.models import DualEncoder;"
        "print([name for name in ('transformers', 'timm', 'open_clip') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
