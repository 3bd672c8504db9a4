"""Weight files load from every common wrapping, no code in them runs, and unusable files are refused by kind."""

from __future__ import annotations

import copy
import json
import os
import pickle
import zipfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CustomTextCLIP, convert_weights_to_fp16
from safetensors.torch import save_file

from bimodal_cl.errors import one_line
from bimodal_cl.models import build_model, load_model
from bimodal_cl.models.weights.torchscript import read_torchscript
from bimodal_cl.models.weights.weight_file import read_weight_file
from tests.refusals import refused
from tests.test_models.source_models import (
    RESNET,
    TOWERS,
    TRANSFORMER,
    VIT,
    assert_same_features,
    export_folder,
    open_clip_model,
    openai_archive,
)


def prefixed(tensors, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


WRAPPINGS = {
    "plain": lambda t: t,
    "data parallel": lambda t: prefixed(t, "module."),
    "compiled": lambda t: prefixed(t, "_orig_mod."),
    "compiled data parallel": lambda t: prefixed(t, "_orig_mod.module."),
    "open_clip's training": lambda t: {
        "epoch": 3,
        "name": "run",
        "state_dict": prefixed(t, "module."),
        "optimizer": {},
    },
    "lightning": lambda t: {"state_dict": prefixed(t, "model."), "global_step": 7, "hyper_parameters": {"lr": 1e-3}},
    "compiled tower": lambda t: {name.replace("visual.", "visual._orig_mod."): each for name, each in t.items()},
    "model": lambda t: {"model": t, "epoch": 1, "optimizer": {"state": {}}},
    "with numpy and argparse objects": lambda t: {
        "model": t,
        "args": Namespace(lr=0.1, tags=["a"]),
        "best": np.float64(0.5),
        "epoch": np.int64(3),
        "history": np.arange(4.0),
        "done": np.bool_(True),
    },
    "half": lambda t: {name: each.half() for name, each in t.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("vision", [VIT, {**RESNET, "patch_size": None}], ids=["vit", "resnet"])
def test_a_file_for_the_towers_of_a_config(wrapping, vision, tmp_path):
    source = open_clip_model(vision)
    torch.save(WRAPPINGS[wrapping](source.state_dict()), tmp_path / "weights.pt")
    if wrapping == "half":
        source = source.half().float()
    towers = {**TOWERS, "vision": {key: value for key, value in vision.items() if value is not None}}
    size = towers["vision"]["image_size"]
    assert_same_features(build_model(**towers, pretrained=str(tmp_path / "weights.pt"), image_size=size), source)


def test_the_layout_of_two_towers_and_a_bias(tmp_path):
    torch.manual_seed(0)
    source = CustomTextCLIP(24, VIT, TRANSFORMER, init_logit_bias=-10).eval()
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    model = build_model(**TOWERS, pretrained=str(tmp_path / "weights.safetensors"))
    assert_same_features(model, source)
    assert model.logit_bias.item() == -10  # SigLIP's bias, which the config's towers do not mention


def test_extra_tensors_are_counted(tmp_path):
    source = open_clip_model()
    tensors = prefixed(source.state_dict(), "model.") | {"loss.scale": torch.ones(1)}
    torch.save({"state_dict": tensors}, tmp_path / "last.ckpt")
    with pytest.warns(UserWarning, match=r"1 tensors outside 'model\.' are left out \(loss\.scale\)"):
        assert_same_features(build_model(**TOWERS, pretrained=str(tmp_path / "last.ckpt")), source)
    both = prefixed(source.state_dict(), "student.") | prefixed(source.state_dict(), "teacher.")
    torch.save(both, tmp_path / "last.ckpt")
    with refused(r"holds several models \(student\., teacher\.\)"):
        build_model(**TOWERS, pretrained=str(tmp_path / "last.ckpt"))


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_openais_archives_say_what_they_are(quick_gelu, tmp_path):
    source = open_clip_model(quick_gelu=quick_gelu)
    path = openai_archive(source, tmp_path / "ViT.pt")
    for model in (load_model(path), build_model(pretrained=str(path)), build_model(**TOWERS, pretrained=str(path))):
        assert model.architecture.quick_gelu is quick_gelu
        assert_same_features(model, source)
    assert read_torchscript(path).tensors.keys() == torch.jit.load(path).state_dict().keys()


def test_a_scripted_archive_in_half_precision_with_other_heads(tmp_path):
    text = {**TRANSFORMER, "heads": 2}
    source = open_clip_model({**VIT, "head_width": 32}, text, quick_gelu=True)
    half = copy.deepcopy(source)
    convert_weights_to_fp16(half)
    torch.jit.script(half).save(tmp_path / "half.pt")
    source.load_state_dict(half.state_dict())
    model = load_model(tmp_path / "half.pt")
    assert model.logit_scale.dtype == torch.float32
    assert_same_features(model, source)


def test_no_code_of_an_archive_is_compiled(tmp_path):
    source = open_clip_model(quick_gelu=True)
    path = openai_archive(source, tmp_path / "ViT.pt")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "broken.pt", "w") as broken:
        for name in archive.namelist():
            broken.writestr(name, b"this is no code" if name.endswith(".py") else archive.read(name))
    with pytest.raises(RuntimeError):
        torch.jit.load(tmp_path / "broken.pt")
    assert_same_features(load_model(tmp_path / "broken.pt"), source)


class Touch:
    """An object whose unpickling makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_in_a_file_runs(tmp_path):
    made = tmp_path / "made"
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/data.pkl", pickle.dumps(Touch(made), protocol=2))
        archive.writestr("script/constants.pkl", b"")
    with refused(r"a TorchScript archive that cannot be read \(posix\.mkdir in place of a tensor"):
        load_model(tmp_path / "script.pt")
    torch.save({"state_dict": {}, "hook": Touch(made)}, tmp_path / "pickled.pt")
    (tmp_path / "raw.bin").write_bytes(pickle.dumps(Touch(made)))
    for name, match in (
        ("pickled.pt", r"holds Python objects \(posix\.mkdir\), which only code"),
        ("raw.bin", "not written by torch.save, or damaged: only tensors can be read"),
    ):
        with refused(match):
            load_model(tmp_path / name)
    assert not made.exists()


def test_known_shapes_tell_the_heads_but_not_the_activation(tmp_path, monkeypatch):
    import open_clip

    from bimodal_cl.models.weights import shapes

    configs = {
        name: {"embed_dim": 24, "vision_cfg": vision, "text_cfg": {**TRANSFORMER, "heads": 2}}
        for name, vision in (("tiny", VIT), ("tiny-64", {**VIT, "image_size": 64}), ("tiny-64-quickgelu", VIT))
    }
    configs["tiny-64-quickgelu"] = {**configs["tiny-64"], "quick_gelu": True}
    monkeypatch.setattr(open_clip, "list_models", lambda: list(configs))
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: configs[name])
    shapes._known_shapes.cache_clear()
    try:
        source = open_clip_model(text={**TRANSFORMER, "heads": 2})
        torch.save(source.state_dict(), tmp_path / "weights.pt")
        model = load_model(tmp_path / "weights.pt")
        assert_same_features(model, source)
        assert model.architecture.name == "tiny"
        larger = open_clip_model({**VIT, "image_size": 64}, {**TRANSFORMER, "heads": 2}, quick_gelu=True)
        torch.save(larger.state_dict(), tmp_path / "weights.pt")
        with refused(r"shapes of 'tiny-64', and does not say which GELU .*'tiny-64-quickgelu:"):
            load_model(tmp_path / "weights.pt")
        assert_same_features(load_model(f"tiny-64-quickgelu:{tmp_path / 'weights.pt'}"), larger)
        for name, match in (("tiny", "of another shape"), ("tiny-64", None)):
            if match is None:
                assert not load_model(f"{name}:{tmp_path / 'weights.pt'}").architecture.quick_gelu
    finally:
        monkeypatch.undo()
        shapes._known_shapes.cache_clear()


def bad_file(kind, folder):
    """Write a file of a kind that cannot be loaded; return its path."""
    tensors = open_clip_model().state_dict()
    path = folder / {"cut safetensors": "w.safetensors", "onnx": "w.onnx", "gguf": "w.bin"}.get(kind, "w.pt")
    if kind == "cut safetensors":
        save_file(tensors, path)
        path.write_bytes(path.read_bytes()[:-100])
    elif kind in ("cut zip", "cut legacy"):
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "cut zip")
        path.write_bytes(path.read_bytes()[:-5000])
    elif kind == "quantised":
        torch.save({**tensors, "visual.conv1.weight": tensors["visual.conv1.weight"].to(torch.int8)}, path)
    elif kind in ("path", "whole module", "number", "zip"):
        values = {"path": {"output": Path("runs"), "state_dict": tensors}, "whole module": open_clip_model()}
        torch.save(values.get(kind, {"lr": 3}), path)
        if kind == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("model/weights.pt", b"")
    else:
        content = {
            "empty": b"",
            "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 605247071\n",
            "onnx": b"\x08\x07\x12\x07pytorch",
            "gguf": b"GGUF\x03\x00\x00\x00",
            "page": b"<!DOCTYPE html><html>",
            "noise": b"nothing",
        }
        if kind in content:
            path.write_bytes(content[kind])
        else:
            names = {
                "lora": {"base_model.model.visual.proj.lora_A.weight": torch.ones(1)},
                "image tower": {name: each for name, each in tensors.items() if name.startswith("visual.")},
                "transformers": {"vision_model.embeddings.class_embedding": torch.ones(1)},
                "coca": {**tensors, "text_decoder.ln.weight": torch.ones(1)},
                "other": {"conv1.weight": torch.ones(1), "fc.weight": torch.ones(1)},
            }
            torch.save(names[kind], path)
    return path


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("empty", r"is empty \(0 bytes\): copy or download it again"),
        ("lfs", "is a Git LFS pointer, not the weights: fetch them with 'git lfs pull'"),
        ("onnx", "is an ONNX graph, not weights that can be trained"),
        ("gguf", r"is a GGUF file for llama\.cpp"),
        ("page", "is a web page, not the weights"),
        ("noise", "is not a weights file: neither safetensors nor written by torch.save"),
        ("zip", "is a ZIP archive, not weights: unpack it"),
        ("cut safetensors", r"damaged, cut short or not a safetensors file \([\d,]+ bytes"),
        ("cut zip", r"damaged or cut short \([\d,]+ bytes\): copy or download it again"),
        ("cut legacy", "damaged or cut short"),
        ("path", r"holds Python objects \(pathlib\.(_local\.)?PosixPath\), which only code"),
        ("whole module", r"holds Python objects \(open_clip\.model\.CLIP\).* save the model's state_dict alone"),
        ("number", "holds no tensors of a model"),
        ("quantised", "quantised weights .'visual.conv1.weight' is int8"),
        ("lora", "holds a LoRA adapter: merge it"),
        ("image tower", "holds the image tower alone, without the text tower"),
        ("transformers", "has transformers' tensor names: give the folder with its config.json"),
        ("coca", "holds a captioning model"),
        ("other", "holds no dual encoder: its tensors are conv1.weight, fc.weight"),
    ],
)
def test_files_without_usable_weights_are_refused_by_kind(kind, match, tmp_path):
    path = bad_file(kind, tmp_path)
    for road in (load_model, lambda path: build_model(**TOWERS, pretrained=str(path))):
        with refused(match) as refusal:
            road(path)
        assert str(path) in str(refusal.value)
        assert not set(str(refusal.value)) & set("\n\r\x1b")


def test_weights_of_another_shape_say_whose_they_are(tmp_path):
    import open_clip

    torch.save(open_clip.create_model("ViT-S-32-alt").state_dict(), tmp_path / "w.pt")
    with refused(r"do not match 'ViT-S-16-alt': 1 of another .*shapes of 'ViT-S-32-alt'"):
        build_model("ViT-S-16-alt", str(tmp_path / "w.pt"))
    assert load_model(tmp_path / "w.pt").architecture.name == "ViT-S-32-alt"
    torch.save(open_clip_model().state_dict(), tmp_path / "w.pt")
    with refused("has these shapes, and shapes do not determine the number of heads"):
        load_model(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({}, "holds no model: it is empty"),
        ({"adapter_config.json": '{"base_model_name_or_path": "openai/clip"}'}, "adapter .LoRA. of 'openai/clip'"),
        ({"model.gguf": "GGUF"}, "'model.gguf' is in GGUF format"),
        ({"model.onnx": "x", "config.json": '{"model_type": "clip"}'}, "has no weights: 'model.onnx' is in ONNX"),
        ({"weights.pt": "x"}, "holds weights without a configuration: give the file, such as '.*weights.pt'"),
        (
            {"config.json": '{"model_type": "vit"}', "model.safetensors": "x"},
            "model_type 'vit' is an image model alone",
        ),
        ({"config.json": '{"model_type": "clip_text_model"}', "model.safetensors": "x"}, "a text model alone"),
        ({"config.json": '{"architecture": "vit_base_patch16_224"}'}, "a timm image model"),
        ({"config.json": "{"}, "not valid JSON"),
        ({"config.json": '{"model_type": "clip"}', "model.safetensors": "version https://git-lfs"}, "Git LFS pointer"),
        ({"open_clip_config.json": "{}", "a.pt": "x", "b.pt": "x"}, r"has several weights files \(a\.pt, b\.pt\)"),
        ({"model.json": "{}"}, "'model.safetensors' is missing"),
    ],
)
def test_folders_without_a_model_say_what_they_hold(files, match, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with refused(match):
        load_model(tmp_path)


def test_a_captioning_model_in_open_clips_form(tmp_path):
    folder = export_folder(open_clip_model(), tmp_path / "coca", multimodal_cfg={"layers": 2})
    with refused(r"open_clip_config.json: a captioning model \(CoCa\), not a dual encoder"):
        load_model(folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    del config["model_cfg"]["multimodal_cfg"]
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(prefixed(open_clip_model().state_dict(), "module."), folder / "open_clip_model.safetensors")
    assert_same_features(load_model(folder), open_clip_model())


def test_a_library_is_quoted_without_control_characters():
    error = RuntimeError("\x1b[1;31mLOAD REPORT\x1b[0m\n key\t\x1b]8;;http://x\x07missing\x00\r\n")
    assert one_line(error) == "LOAD REPORT key missing"
    assert one_line(RuntimeError("\x1b[0m")) == "RuntimeError"


def test_a_file_of_torch_under_another_ending_says_so(tmp_path):
    torch.save(open_clip_model().state_dict(), tmp_path / "clip.safetensors")
    with refused(r"written by torch\.save, not by safetensors: rename it to 'clip\.pt'"):
        load_model(tmp_path / "clip.safetensors")


def test_a_file_read_twice_is_the_same(tmp_path):
    tensors = open_clip_model().state_dict()
    torch.save(
        {"epoch": 1, "name": "ViT-B-32-quickgelu-lr", "state_dict": prefixed(tensors, "module.")}, tmp_path / "e.pt"
    )
    file = read_weight_file(tmp_path / "e.pt")
    assert file.experiment == "ViT-B-32-quickgelu-lr"
    assert file.tensors.keys() == tensors.keys()
