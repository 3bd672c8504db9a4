"""Layers of every family of towers: their numbers, what a lock keeps still, and the learning rate of each."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bimodal_cl.errors import SettingRefused, UserError
from bimodal_cl.models import DualEncoder
from bimodal_cl.optim import build_optimizer
from bimodal_cl.training.trained_parts import find_hidden, find_parts, lock_towers
from tests.test_optim.tower_families import FAMILIES, build_family, encode

MODALITIES = {"visual": "image", "text": "text"}
FRESH = {"image": True, "text": True}


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """Return a copy of a family's model, in training mode."""
    built: dict[str, DualEncoder] = {}

    def build(family: str) -> DualEncoder:
        if family not in built:
            built[family] = build_family(family, tmp_path_factory.mktemp(family))
        return copy.deepcopy(built[family])

    return build


def lock(model: DualEncoder, tower: str, unlocked: int) -> None:
    model.lock(**{f"{MODALITIES[tower]}_unlocked": unlocked})


def train_steps(model: DualEncoder, tower: str, num_steps: int = 2) -> None:
    """Take steps of SGD on the features of a fixed batch."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.5)
    for _ in range(num_steps):
        features = encode(model, MODALITIES[tower])
        (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_numbered_from_the_input_to_the_head(families, family):
    tower, num_layers, num_groups, before_head = FAMILIES[family]
    model = families(family)
    layers = model.layers[MODALITIES[tower]]
    names = [name for name, _ in getattr(model, tower).named_parameters()]
    assert sorted(layers.numbers) == sorted(names)
    assert layers.head == num_layers and layers.num_groups == num_groups
    assert set(layers.numbers.values()) == set(range(num_layers + 1))
    assert layers.numbers[before_head] == num_layers - 1
    for name, number in layers.numbers.items():
        if "embed" in name and "attnpool" not in name:
            assert number == 0, name


@pytest.mark.parametrize("unlocked", [0, 1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_locked_layers_stay_bit_identical_and_the_others_are_trained(families, family, unlocked):
    tower, num_layers, num_groups, _ = FAMILIES[family]
    model = families(family)
    lock(model, tower, unlocked)
    before = copy.deepcopy(getattr(model, tower))
    if family in ("vit", "resnet", "transformer") and unlocked == 0:
        assert not encode(model, MODALITIES[tower]).requires_grad  # all of it is locked, and leaves no graph
        return
    if family.startswith("siglip") and unlocked == 0:
        assert not any(parameter.requires_grad for parameter in getattr(model, tower).parameters())
        return
    train_steps(model, tower)
    numbers = model.layers[MODALITIES[tower]].numbers
    changed = set()
    for (name, old), new in zip(before.named_parameters(), getattr(model, tower).parameters(), strict=True):
        if numbers[name] < num_groups - unlocked:
            assert torch.equal(old, new), name
        elif not torch.equal(old, new):
            changed.add(numbers[name])
    assert changed == set(range(num_groups - unlocked, num_layers + 1))


@pytest.mark.parametrize("family", ["resnet", "timm_resnet"])
def test_batch_norms_of_locked_layers_keep_their_statistics(families, family):
    tower = FAMILIES[family][0]
    model = families(family)
    lock(model, tower, 2)
    numbers, first_trained = model.layers["image"].numbers, FAMILIES[family][2] - 2
    norms = [(name, module) for name, module in model.visual.named_modules() if isinstance(module, _BatchNorm)]
    before = {name: copy.deepcopy(module) for name, module in norms}
    model.eval()
    model.train()  # as an evaluation between two steps does
    train_steps(model, tower)
    moved = {name: not torch.equal(before[name].running_mean, module.running_mean) for name, module in norms}
    assert moved == {name: numbers[f"{name}.weight"] >= first_trained for name, _ in norms}
    assert set(moved.values()) == {True, False}


@pytest.mark.parametrize("unlocked", [None, 2])
@pytest.mark.parametrize("family", ["resnet", "timm_resnet"])
def test_statistics_stay_while_batch_norms_are_trained(families, family, unlocked):
    model = families(family)
    model.lock(image_unlocked=unlocked, freeze_statistics=True)
    norms = {name: module for name, module in model.visual.named_modules() if isinstance(module, _BatchNorm)}
    before = {name: copy.deepcopy(norm) for name, norm in norms.items()}
    model.eval()
    model.train()  # as an evaluation between two steps does
    assert model.visual.training
    train_steps(model, "visual")
    for name, norm in norms.items():
        assert not norm.training and torch.equal(norm.running_mean, before[name].running_mean)
        assert torch.equal(norm.num_batches_tracked, before[name].num_batches_tracked)
    trained = [name for name, norm in norms.items() if not torch.equal(norm.weight, before[name].weight)]
    assert trained and (unlocked is None or len(trained) < len(norms))


def test_frozen_statistics_need_batch_norms_that_have_some(families):
    with pytest.raises(UserError, match=r"freeze_statistics=true has no effect: the image tower has no batch norms"):
        families("vit").lock(freeze_statistics=True)
    unlocked = {"image": None, "text": None}
    with pytest.warns(UserWarning, match="freeze_statistics: the image tower starts from random weights"):
        lock_towers(families("timm_resnet"), unlocked, FRESH, freeze_statistics=True)


@pytest.mark.parametrize(("family", "modality"), [("timm_vit", "image"), ("bert", "text")])
def test_a_locked_trunk_has_neither_dropout_nor_a_graph(families, family, modality):
    """The ViT has stochastic depth, BERT has dropout."""
    model = families(family)
    torch.manual_seed(0)
    pair = [encode(model, modality) for _ in range(2)]
    assert modality == "image" or not torch.equal(*pair)
    tower, trunk = (model.visual, "trunk") if modality == "image" else (model.text, "transformer")
    lock(model, "visual" if modality == "image" else "text", 0)
    inputs: list[torch.Tensor] = []
    head = tower.head if modality == "image" else tower.proj
    head.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    for _ in range(2):
        torch.manual_seed(1)
        encode(model.train(), modality)
        torch.manual_seed(1)
    assert torch.equal(*inputs) and not inputs[0].requires_grad
    assert not tower.get_submodule(trunk).training and head.training


def test_a_copy_of_a_locked_model_is_locked(families):
    model = families("timm_resnet")
    lock(model, "visual", 0)
    twin = copy.deepcopy(model).train()
    assert not twin.visual.trunk.training and twin._kept_in_eval[0] is twin.visual.trunk


def test_a_lock_that_locks_nothing_is_refused(families):
    model = families("vit")
    with pytest.raises(
        UserError, match=r"optim.image.unlocked_groups=5 leaves nothing locked: .* 5 groups; use at most 4"
    ):
        model.lock(image_unlocked=5)


def test_nothing_left_to_train_is_refused_and_random_towers_are_warned_of(families):
    model = families("vit")
    with (
        pytest.raises(SettingRefused, match="leave nothing to train"),
        pytest.warns(UserWarning, match="tower starts from random weights") as caught,
    ):
        lock_towers(model, {"image": 0, "text": 0}, fresh=FRESH)
    assert len(caught) == 2
    lock_towers(families("bert"), {"image": None, "text": 0}, fresh=FRESH)  # a Hugging Face tower has its own weights


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_decay_falls_from_the_head_to_the_embeddings(families, family):
    tower, num_layers, _, _ = FAMILIES[family]
    model = families(family)
    modality = MODALITIES[tower]
    rates = {
        "tower_learning_rates": {"image": None, "text": None} | {modality: 0.2},
        "layer_decays": {"image": 1.0, "text": 1.0} | {modality: 0.5},
    }
    parts = find_parts(model, learning_rate=1.0, heads_learning_rate=3.0, **rates)
    optimizer = build_optimizer(model, learning_rate=1.0, weight_decay=0.1, parts=parts)
    rate_of = {id(one): group["lr"] for group in optimizer.param_groups for one in group["params"]}
    other = model.text if tower == "visual" else model.visual
    heads = {id(one) for name, one in other.named_parameters() if _number(model, other, name) == _head(model, other)}
    for name, parameter in getattr(model, tower).named_parameters():
        number = model.layers[modality].numbers[name]
        expected = 3.0 if number == num_layers else 0.2 * 0.5 ** (num_layers - number)
        assert rate_of[id(parameter)] == pytest.approx(expected), name
    for parameter in other.parameters():
        assert rate_of[id(parameter)] == (3.0 if id(parameter) in heads else 1.0)


def _modality(model: DualEncoder, tower: nn.Module) -> str:
    return "image" if tower is model.visual else "text"


def _number(model: DualEncoder, tower: nn.Module, name: str) -> int:
    return model.layers[_modality(model, tower)].numbers[name]


def _head(model: DualEncoder, tower: nn.Module) -> int:
    return model.layers[_modality(model, tower)].head


@pytest.mark.parametrize("family", ["vit", "t5", "resnet"])
def test_muon_takes_the_matrices_of_blocks_alone(families, family):
    model = families(family)
    optimizer = build_optimizer(model, learning_rate=1e-3, weight_decay=0.1, name="muon", hidden=find_hidden(model))
    taken = {id(one) for group in optimizer.param_groups if "use_fallback" not in group for one in group["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in taken}
    assert names and all(".resblocks." in name or ".block." in name or ".layer" in name for name in names)
    assert not any("embedding" in name or "relative_attention_bias" in name or "bn" in name for name in names)
    assert names.isdisjoint({"visual.proj", "visual.conv1.weight", "text.text_projection", "text.proj.weight"})
