"""Every kind of model name loads the right model, and a name without a model is refused with the reason."""

from __future__ import annotations

import hashlib
import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from bimodal_cl.models import build_model, load_model
from bimodal_cl.models.architecture import default_preprocess
from bimodal_cl.models.locate.names import locate_model
from bimodal_cl.models.locate.open_clip_names import canonical_architecture
from eval.encode import open_model
from tests.refusals import refused
from tests.test_models.huggingface.folders import pooled, write_word_clip
from tests.test_models.source_models import (
    PREPROCESS,
    RESNET,
    TOWERS,
    VIT,
    assert_same_features,
    export_folder,
    hub_cache,
    open_clip_model,
    openai_archive,
)


@pytest.fixture
def cache(tmp_path, offline, monkeypatch):
    """An empty hub cache, offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def published(monkeypatch):
    """Make open_clip find a given file as the weights of a tag."""

    def publish(path):
        asked = []
        monkeypatch.setattr("open_clip.download_pretrained", lambda config: asked.append(config) or str(path))
        return asked

    return publish


@pytest.mark.parametrize("road", [load_model, lambda name: build_model(pretrained=name)], ids=["load_model", "config"])
def test_an_export_by_all_its_names(road, cache, tmp_path, monkeypatch):
    source = open_clip_model()
    folder = export_folder(source, tmp_path / "export")
    hub_cache(cache, "some-lab/clip", folder)
    monkeypatch.setenv("MODELS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    names = [str(folder), f"local-dir:{folder}", "$MODELS/export", "local-dir:$MODELS/export", "~/export"]
    names += [f"{folder}/open_clip_model.safetensors", "hf-hub:some-lab/clip", "some-lab/clip"]
    names += ["local-dir:~/export", "https://huggingface.co/some-lab/clip"]
    for name in names if road is load_model else names[::3]:
        model = road(name)
        assert_same_features(model, source)
        assert model.architecture.preprocess == default_preprocess() | PREPROCESS, name


def test_a_pretrained_model_brings_its_architecture_and_moves_to_another_size(tmp_path):
    source = open_clip_model(quick_gelu=True)
    folder = export_folder(source, tmp_path / "export", quick_gelu=True)
    model = build_model(pretrained=str(folder))
    assert model.training
    assert all(parameter.requires_grad for parameter in model.visual.parameters())
    larger = build_model(pretrained=str(folder), image_size=64).eval()
    assert larger.image_size == 64
    assert larger.architecture.quick_gelu
    blank = larger.encode_image(torch.zeros(1, 3, 64, 64)) @ model.eval().encode_image(torch.zeros(1, 3, 32, 32)).T
    assert blank.item() > 0.8
    spelled = build_model(**TOWERS, pretrained=str(folder))  # the towers match; preprocessing comes with the weights
    assert_same_features(spelled, source)
    assert spelled.architecture.preprocess == default_preprocess() | PREPROCESS


def test_a_run_without_links_and_its_folders(encoder, pixels, tmp_path):
    run = tmp_path / "run"
    for step in (2, 10):
        encoder.logit_scale.fill_(step)
        encoder.save(run / "checkpoints" / f"step_{step:08d}")
    encoder.save(run / "checkpoints" / "step_00000012.partial")
    (run / "checkpoints" / "best").symlink_to("step_00000002")
    for name, step in (
        ("", 10),
        ("checkpoints", 10),
        ("checkpoints/best", 2),
        ("checkpoints/best/model.safetensors", 2),
    ):
        model = build_model(pretrained=str(run / name)).eval()
        assert model.logit_scale.item() == step
        assert torch.equal(model.encode_image(pixels), encoder.encode_image(pixels))
    source = locate_model(run)
    assert (source.name, source.folder.name, source.run) == ("run", "step_00000010", run)


def test_a_name_beside_weights_of_another_architecture_is_one_line(tmp_path):
    folder = export_folder(open_clip_model(), tmp_path / "export")
    with refused(r"does not match model.name 'ViT-B-32': embed_dim 24 and not 512, "):
        build_model(name="ViT-B-32", pretrained=str(folder))
    heads = {**TOWERS, "text": {**TOWERS["text"], "heads": 2}}  # no tensor shows the number of heads
    with refused(r"does not match the towers in model: text.heads 1 and not 2; give it alone"):
        build_model(**heads, pretrained=str(folder))
    with refused(r"has the architecture 'RN50', not that of model.name 'ViT-B-32'"):
        source = openai_archive(open_clip_model(), tmp_path / "w.pt")
        build_model(name="ViT-B-32", pretrained=f"RN50:{source}")


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("ViT-B/32", ("ViT-B-32", "openai")),
        ("ViT-B/32/openai", ("ViT-B-32", "openai")),
        ("ViT-B-32:openai", ("ViT-B-32", "openai")),
        ("ViT-B/16/laion2b_s34b_b88k", ("ViT-B-16", "laion2b_s34b_b88k")),
        ("ViT-L/14@336px", ("ViT-L-14-336", "openai")),
        ("ViT-L/14@336px/openai", ("ViT-L-14-336", "openai")),
        ("RN50x4/openai", ("RN50x4", "openai")),
        ("timm/ViT-B-16-SigLIP", ("ViT-B-16-SigLIP", "webli")),
        ("timm/ViT-B-16-SigLIP/webli", ("ViT-B-16-SigLIP", "webli")),
        ("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", ("ViT-B-32", "laion2b_s34b_b79k")),
    ],
)
def test_spellings_of_a_published_pair(name, pair, cache, published, tmp_path):
    import open_clip

    asked = published(tmp_path / "weights.pt")
    source = locate_model(name)
    assert (source.name, source.pretrained) == pair
    assert asked == [open_clip.get_pretrained_cfg(*pair)]
    assert source.weights == tmp_path / "weights.pt"


def test_published_weights_bring_activation_and_preprocessing(published, monkeypatch, tmp_path):
    """Load a published pair whose architecture is replaced by a small one."""
    import open_clip

    source = open_clip_model(quick_gelu=True)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    published(tmp_path / "weights.pt")
    config = {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TOWERS["text"]}
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: config)
    for model in (load_model("ViT-B/32"), build_model("ViT-B/32", "openai"), build_model("ViT-B-32", "ViT-B/32")):
        assert model.architecture.quick_gelu
        assert_same_features(model, source)


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("ViT-B/32", "ViT-B-32"),
        ("ViT-L/14@336px", "ViT-L-14-336"),
        ("timm/ViT-B-16-SigLIP", "ViT-B-16-SigLIP"),
        ("RN50x4", "RN50x4"),
        ("vit-b-32", None),
        ("ViT-B-32/openai", None),
        ("openai/clip", None),
    ],
)
def test_architectures_in_other_spellings(spelled, name):
    assert canonical_architecture(spelled) == name


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"name": "vit-b/32"}, "model.name 'vit-b/32' is not an open_clip config; did you mean 'ViT-B-32'"),
        ({"name": "ViT-B/32/openai"}, "give model.name 'ViT-B-32' and model.pretrained 'openai'"),
        ({"name": "hf-hub:org/clip"}, "is a model with weights, .* give it as model.pretrained, without model.name"),
        ({"pretrained": "openai"}, "'openai': no such file, and tags are known only for a model.name"),
        ({"pretrained": "local-dir:nowhere"}, "model.pretrained 'local-dir:nowhere': no such folder"),
        ({"name": "ViT-B-32", "pretrained": "OpenAJ"}, "neither a file nor a tag of 'ViT-B-32'; did you mean 'openai'"),
    ],
)
def test_mistakes_in_a_config_are_one_line(arguments, match, cache):
    with refused(match):
        build_model(**arguments)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("vit-b-32", "is neither a folder nor an open_clip NAME/TAG; did you mean 'ViT-B-32/openai'"),
        ("vit-b/32/openai", "did you mean 'ViT-B-32/openai'"),
        ("coca_ViT-B-32/laion2b_s13b_b90k", "is a captioning model .CoCa., not a dual encoder"),
        ("openai/clip-vit-base-patch32", "is not in the cache .* and cannot be fetched: offline mode is on"),
        ("hf-hub:some-lab/clip", "'hf-hub:some-lab/clip' is not in the cache .*: offline mode is on"),
        ("hf-hub:clip", "a repository of the hub is ORGANISATION/NAME, got 'clip'"),
        ("https://example.org/clip.pt", "is a URL: download the file, and give its path"),
        ("ViT-B-32:nowhere/weights.pt", "no such file 'nowhere/weights.pt'"),
        ("", "the name is empty"),
        ("local-dir:", "local-dir:': the name is empty"),
        ("ViT-B/31", "did you mean 'ViT-B/32'"),
        ("ViT-L/14@335px", "did you mean 'ViT-L/14@336px'"),
        ("timm/vit_base_patch16_224.augreg_in1k", "a timm image model is given as model.vision.timm_model_name"),
    ],
)
def test_names_without_a_model_are_refused_in_one_line(name, match, cache):
    with refused(match):
        load_model(name)


def test_a_mistyped_path_is_answered_with_the_nearest(tmp_path, encoder):
    encoder.save(tmp_path / "runs" / "first")
    for given, meant in (
        ("runs/frist", "first"),
        ("run/first", "runs/first"),
        ("runs/first/model.safetensor", "model"),
    ):
        with refused(f"did you mean '{meant}"):
            load_model(tmp_path / given)


def test_a_run_of_open_clips_says_how_to_name_its_checkpoints(tmp_path):
    run = tmp_path / "2025_01_01-model_ViT-B-32"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "epoch_2.pt").touch()
    (run / "params.txt").write_text("batch_size: 64\nmodel: ViT-B-32\nname: x\n")
    with refused(r"is an open_clip run, .* as in 'ViT-B-32:.*/checkpoints/epoch_2\.pt'"):
        load_model(run)


def test_hub_repositories_without_a_usable_model(cache, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text("{}")
    hub_cache(cache, "lab/unfinished", folder)
    with refused("'hf-hub:lab/unfinished' is not in the cache"):
        load_model("hf-hub:lab/unfinished")
    (folder / "open_clip_config.json").unlink()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    hub_cache(cache, "lab/bert", folder)  # refused before its weights are requested
    with refused("model_type 'bert' is a text model alone"):
        load_model("lab/bert")
    (folder / "config.json").rename(folder / "adapter_config.json")
    hub_cache(cache, "lab/lora", folder)
    with refused(r"holds an adapter \(LoRA\)"):
        load_model("lab/lora")


def test_a_transformers_model_of_the_hub(cache, tmp_path):
    theirs = write_word_clip(tmp_path / "clip")
    hub_cache(cache, "openai/clip-tiny", tmp_path / "clip")
    shutil.rmtree(tmp_path / "clip")
    with pytest.warns(UserWarning, match="the cache has no preprocessor_config.json, and offline mode is on"):
        model = build_model(pretrained="openai/clip-tiny").eval()
    images = torch.randn(2, 3, 32, 32)
    expected = pooled(theirs.get_image_features(pixel_values=images))
    torch.testing.assert_close(model.encode_image(images), expected, atol=1e-5, rtol=0)
    assert model.architecture.quick_gelu


def test_shards_of_a_transformers_model(cache, tmp_path):
    theirs = write_word_clip(tmp_path / "clip", eos_token_id=2)
    (tmp_path / "clip" / "model.safetensors").unlink()
    (tmp_path / "clip" / "preprocessor_config.json").write_text("{}")
    theirs.save_pretrained(tmp_path / "clip", max_shard_size="100KB")
    shards = sorted((tmp_path / "clip").glob("model-*.safetensors"))
    assert len(shards) > 1
    hub_cache(cache, "lab/sharded", tmp_path / "clip")
    scored = open_model("lab/sharded", torch.device("cpu"))
    assert scored.sha256 == hashlib.sha256(b"".join(shard.read_bytes() for shard in shards)).hexdigest()
    assert (scored.name, scored.pretrained) == ("lab/sharded", "hf-hub:lab/sharded")
    images = torch.randn(2, 3, 32, 32)
    expected = pooled(theirs.get_image_features(pixel_values=images))
    torch.testing.assert_close(scored.encoder.encode_image(images), expected, atol=1e-5, rtol=0)


def test_a_gated_or_missing_repository_says_so(monkeypatch):
    from huggingface_hub import errors

    for kind, match in (
        (errors.GatedRepoError, "terms must be accepted"),
        (errors.RepositoryNotFoundError, "no such rep"),
    ):

        def download(*_, kind=kind, **__):
            raise kind("\x1b[31mlong\n text", response=SimpleNamespace(headers={}, request=None))

        monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
        with refused(match) as refusal:
            load_model("some-lab/clip")
        assert "\x1b" not in str(refusal.value)


def test_resnets_of_openai_too(tmp_path):
    source = open_clip_model({**RESNET, "patch_size": None}, quick_gelu=True)
    assert_same_features(load_model(openai_archive(source, tmp_path / "RN.pt")), source)
