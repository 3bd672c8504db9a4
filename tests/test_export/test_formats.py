"""Every road to an exported model gives the model's own features, or says why there is none."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil

import pytest
import torch

from bimodal_cl.models import load_model
from bimodal_cl.models.export.folder import write_formats
from tests.refusals import refused
from tests.test_export.conftest import CAPTIONS, images_of
from tests.test_models.huggingface.folders import pooled

NEEDS_ONNX = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnxscript") is None,
    reason="the extra `onnx` is not installed",
)
# open_clip, the class of transformers, and what the remarks say of a missing format
EXPECTED = {
    "vit": (True, "CLIPModel", ""),
    "quick_gelu": (True, "CLIPModel", ""),
    "clip_with_words": (True, "CLIPModel", ""),
    "resnet": (True, None, "not for transformers: CLIPModel has no ResNet image tower"),
    "timm_bert": (True, None, "not for transformers: CLIPModel has no image tower of timm ('test_resnet')"),
    "timm_mt5": (True, None, "not for transformers: CLIPModel has no image tower of timm ('test_resnet')"),
    "open_clip_siglip": (True, None, "not for transformers: CLIPModel has no image tower of timm ('test_resnet')"),
    "timm_distilbert": (False, None, "not for open_clip: open_clip has no text tower of the family 'distilbert'"),
    "siglip": (False, "SiglipModel", "not for open_clip: open_clip has no tower for transformers' SigLIP"),
}


@torch.no_grad()
def close(name, images, texts, model, tolerance=1e-5):
    """Assert that features are those of a model for the sixteen images and captions."""
    pixels = torch.stack([model.preprocess(image) for image in images_of(model.image_size)])
    for found, expected in ((images, model.encode_image(pixels)), (texts, model.encode_text(CAPTIONS))):
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0, msg=lambda text: f"{name}: {text}")


@torch.no_grad()
def open_clip_features(name, tokenizer_name, pretrained=None):
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=pretrained)
    tokenizer = open_clip.get_tokenizer(tokenizer_name)
    model.eval()
    side = model.visual.image_size[0] if isinstance(model.visual.image_size, tuple) else model.visual.image_size
    pixels = torch.stack([preprocess(image) for image in images_of(side)])
    texts = model.encode_text(tokenizer(CAPTIONS), normalize=True)
    return model.encode_image(pixels, normalize=True), texts, model.logit_scale.item()


@torch.no_grad()
def transformers_features(folder, model_class):
    import transformers

    model = getattr(transformers, model_class).from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    length = model.config.text_config.max_position_embeddings
    tokens = tokenizer(CAPTIONS, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    side = model.config.vision_config.image_size
    images = pooled(model.get_image_features(**processor(images=images_of(side), return_tensors="pt")))
    return images, pooled(model.get_text_features(**tokens)), model.logit_scale.item()


@torch.no_grad()
def own_features(name):
    model = load_model(name)
    pixels = torch.stack([model.preprocess(image) for image in images_of(model.image_size)])
    return model.encode_image(pixels), model.encode_text(CAPTIONS), model.logit_scale.item()


@pytest.mark.parametrize("kind", EXPECTED)
def test_all_roads_give_the_same_features(kind, make, tmp_path, caplog):
    import open_clip

    model = make(kind)
    folder = tmp_path / "out"
    folder.mkdir()
    formats = write_formats(model, folder, str(folder), onnx=False)
    with_open_clip, model_class, remark = EXPECTED[kind]
    assert (formats.open_clip, formats.huggingface, formats.onnx) == (with_open_clip, model_class, False)
    assert any(line.startswith(remark) for line in formats.remarks) or not remark
    # The tokenizers and the text model's configuration come from the folder, not from where they once were.
    shutil.rmtree(tmp_path / "sources", ignore_errors=True)
    roads = {"load_model": own_features(folder)}
    if with_open_clip:
        roads["load_model of .pt"] = own_features(folder / "open_clip_model.pt")
        roads["local-dir"] = open_clip_features(f"local-dir:{folder}", f"local-dir:{folder}")
        config = tmp_path / "tiny-export.json"
        shutil.copy(folder / "open_clip_model.json", config)
        open_clip.add_model_config(config)
        roads[".pt"] = open_clip_features("tiny-export", f"local-dir:{folder}", str(folder / "open_clip_model.pt"))
        state = torch.load(folder / "open_clip_model.pt", weights_only=True)["state_dict"]
        assert all(type(tensor) is torch.Tensor for tensor in state.values())
    if model_class:
        roads["transformers"] = transformers_features(folder / "huggingface", model_class)
        roads["load_model of transformers"] = own_features(folder / "huggingface")
    for name, (images, texts, logit_scale) in roads.items():
        close(name, images, texts, model)
        assert logit_scale == pytest.approx(3.25), name
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_the_logit_bias_travels_where_it_can(make, tmp_path):
    import open_clip

    model = make("vit")
    model.set_temperature(torch.tensor(2.5), torch.tensor(-9.75))
    (tmp_path / "out").mkdir()
    formats = write_formats(model, tmp_path / "out", "out", onnx=False)
    assert "CLIPModel has no logit bias" in " ".join(formats.remarks)
    theirs = open_clip.create_model(f"local-dir:{tmp_path / 'out'}")
    assert (theirs.logit_scale.item(), theirs.logit_bias.item()) == (2.5, -9.75)
    assert load_model(tmp_path / "out").logit_bias.item() == -9.75


def test_a_moved_folder_loads_and_a_name_of_the_hub_is_kept(make, tmp_path, monkeypatch):
    from bimodal_cl.models.export.open_clip_folder import open_clip_config

    model = make("timm_bert")
    (tmp_path / "out").mkdir()
    write_formats(model, tmp_path / "out", str(tmp_path / "out"), onnx=False)
    shutil.rmtree(tmp_path / "sources")
    (tmp_path / "out").rename(tmp_path / "moved")
    close("moved", *own_features(tmp_path / "moved")[:2], model)
    model.architecture.text["hf_model_name"] = "google-bert/bert-base-uncased"
    text = open_clip_config(model.architecture, "/home/me/out")["model_cfg"]["text_cfg"]
    assert (text["hf_model_name"], text["hf_model_pretrained"]) == ("google-bert/bert-base-uncased", False)
    assert text["hf_tokenizer_name"] == "google-bert/bert-base-uncased"


@pytest.mark.parametrize(
    ("preprocess", "size"),
    [
        ({"resize_mode": "squash"}, {"height": 32, "width": 32}),
        ({"resize_mode": "longest", "interpolation": "bilinear"}, {"max_height": 32, "max_width": 32}),
        ({"resize_size": 40, "mean": [0.5] * 3, "std": [0.25] * 3}, {"shortest_edge": 40}),
    ],
)
def test_preprocessing_travels_along(preprocess, size, make, tmp_path):
    import transformers

    from tests.test_models.huggingface.folders import SIZES, blocks

    model = make("vit")
    model.architecture = model.architecture.with_preprocess(preprocess)
    (tmp_path / "out").mkdir()
    formats = write_formats(model, tmp_path / "out", "out", onnx=False)
    written = json.loads((tmp_path / "out" / "huggingface" / "preprocessor_config.json").read_text())
    assert written["size"] == size
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out" / "huggingface")
    reread = load_model(tmp_path / "out" / "huggingface")
    exact = load_model(tmp_path / "out")
    assert ("resizes images" in " ".join(formats.remarks)) == ("resize_size" in preprocess)
    for shape in SIZES:
        image = blocks(*shape)
        theirs = processor(images=image, return_tensors="pt")["pixel_values"][0]
        step = 1 / 255 / min(model.architecture.preprocess["std"])
        assert (reread.preprocess(image) - theirs).abs().max() < 1.1 * step
        if "resize_size" not in preprocess:
            assert torch.equal(exact.preprocess(image), model.preprocess(image))


@pytest.mark.parametrize(
    ("part", "key", "value", "match"),
    [
        ("vision", "pool_type", "avg", "CLIPModel has no counterpart of model.vision.pool_type = 'avg'"),
        ("text", "no_causal_mask", True, "CLIPModel has no counterpart of model.text.no_causal_mask = True"),
        ("text", "pool_type", "last", "CLIPModel pools texts at their end, not by pool_type 'last'"),
    ],
)
def test_options_without_counterpart_are_named(part, key, value, match, make, tmp_path):
    from bimodal_cl.models import build_model
    from tests.test_models.small_models import TEXT, VISION

    towers = {"vision": dict(VISION), "text": dict(TEXT)}
    towers[part][key] = value
    (tmp_path / "out").mkdir()
    formats = write_formats(build_model(embed_dim=16, **towers).eval(), tmp_path / "out", "out", onnx=False)
    assert formats.open_clip and formats.huggingface is None
    assert f"not for transformers: {match}" in formats.remarks
    assert not (tmp_path / "out" / "huggingface").exists()


def test_a_model_of_open_clips_own_config_is_loaded_by_its_name(tmp_path, monkeypatch):
    import open_clip

    from bimodal_cl.models import build_model
    from bimodal_cl.models.export.open_clip_folder import builtin_name
    from tests.test_models.small_models import TEXT, VISION

    config = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT}
    (tmp_path / "ViT-tiny-export.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "ViT-tiny-export.json")
    model = build_model("ViT-tiny-export").eval()
    assert builtin_name(model.architecture) == "ViT-tiny-export"
    (tmp_path / "out").mkdir()
    assert write_formats(model, tmp_path / "out", "out", onnx=False).builtin == "ViT-tiny-export"
    weights = str(tmp_path / "out" / "open_clip_model.pt")
    theirs = open_clip.create_model("ViT-tiny-export", pretrained=weights).eval()
    tokens = model.tokenize(CAPTIONS)
    assert torch.allclose(theirs.encode_text(tokens, normalize=True), model.encode_text(tokens), atol=1e-6)
    assert builtin_name(build_model("ViT-tiny-export", image_size=48).architecture) is None


@NEEDS_ONNX
@pytest.mark.parametrize("kind", ["vit", "timm_distilbert", "siglip"])
def test_onnx_gives_the_same_features(kind, make, tmp_path):
    import onnxruntime

    from bimodal_cl.models.export.onnx_files import write_onnx

    model = make(kind)
    write_onnx(model, tmp_path)
    pixels = torch.stack([model.preprocess(image) for image in images_of(model.image_size)])
    inputs = {"image": ("pixels", pixels), "text": ("tokens", model.tokenize(CAPTIONS))}
    found = []
    for modality, (name, values) in inputs.items():
        session = onnxruntime.InferenceSession(str(tmp_path / f"{modality}.onnx"), providers=["CPUExecutionProvider"])
        assert [output.name for output in session.get_outputs()] == [f"{modality}_features"]
        found.append(torch.from_numpy(session.run(None, {name: values.numpy()})[0]))
    close("onnx", *found, model, tolerance=1e-4)


@NEEDS_ONNX
def test_a_wrong_onnx_file_is_not_left(make, tmp_path, monkeypatch):
    from bimodal_cl.models.export.onnx_files import write_onnx

    monkeypatch.setattr("bimodal_cl.models.export.onnx_files.TOLERANCE", -1.0)
    with refused("image features differ by .*, more than"):
        write_onnx(make("vit"), tmp_path)
    assert not list(tmp_path.glob("*.onnx*"))


def test_a_wrong_conversion_is_not_left(make, tmp_path, monkeypatch):
    from bimodal_cl.models.export import huggingface_clip

    monkeypatch.setitem(huggingface_clip._NORMS, "visual.ln_pre", "vision_model.post_layernorm")
    monkeypatch.setitem(huggingface_clip._NORMS, "visual.ln_post", "vision_model.pre_layrnorm")
    model = make("vit")
    torch.nn.init.normal_(model.visual.ln_pre.weight)
    (tmp_path / "out").mkdir()
    formats = write_formats(model, tmp_path / "out", "out", onnx=False)
    assert formats.huggingface is None and not (tmp_path / "out" / "huggingface").exists()
    assert any(line.startswith("not for transformers: image features differ") for line in formats.remarks)
